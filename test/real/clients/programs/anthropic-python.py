"""What a person writes with the package anthropic: one message, or a stream, whole or left half way."""

import os
import sys

from anthropic import Anthropic

client = Anthropic(base_url=os.environ["SERVER"], api_key=os.environ["KEY"])
question = {
    "model": os.environ["MODEL"],
    "max_tokens": 4096,
    "messages": [{"role": "user", "content": "Hello!"}],
}
try:
    if os.environ["TASK"] == "chat":
        print(client.messages.create(**question).content[0].text)
    else:
        with client.messages.stream(**question) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
                if os.environ["TASK"] == "abort":
                    break
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
