"""What a person writes with the package ollama: one chat, or a stream that is left half way."""

import os
import sys

from ollama import Client

client = Client(
    host=os.environ["SERVER"],
    headers={"Authorization": f"Bearer {os.environ['KEY']}"},
)
question = {
    "model": os.environ["MODEL"],
    "messages": [{"role": "user", "content": "Hello!"}],
}
try:
    if os.environ["TASK"] == "abort":
        for part in client.chat(**question, stream=True):
            print(part.message.content)
            break
    else:
        print(client.chat(**question).message.content)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
