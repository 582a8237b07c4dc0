"""What a person writes with the package openai: one chat, or a stream that is left half way."""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=f"{os.environ['SERVER']}/v1",
    api_key=os.environ["KEY"],
)
question = {
    "model": os.environ["MODEL"],
    "messages": [{"role": "user", "content": "Hello!"}],
}
try:
    if os.environ["TASK"] == "abort":
        with client.chat.completions.create(**question, stream=True) as stream:
            print(next(stream).choices[0].delta.content)
    else:
        reply = client.chat.completions.create(**question)
        print(reply.choices[0].message.content)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
