"""What a person writes with langchain-ollama: one chat, or a stream that is left half way."""

import os
import sys

from langchain_ollama import ChatOllama

llm = ChatOllama(
    base_url=os.environ["SERVER"],
    model=os.environ["MODEL"],
    client_kwargs={"headers": {"Authorization": f"Bearer {os.environ['KEY']}"}},
)
try:
    if os.environ["TASK"] == "abort":
        for chunk in llm.stream("Hello!"):
            print(chunk.content)
            break
    else:
        print(llm.invoke("Hello!").content)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
