#!/usr/bin/env bash
# LangChain's classes for OpenAI take a base_url, and Ollama speaks OpenAI's API.
# Guess: max_tokens bounds a reply of ChatOpenAI, and OpenAI, for plain completions,
# works as well.
# Seen: ChatOpenAI sends max_tokens as max_completion_tokens, by OpenAI's new name,
# which Ollama does not read: the reply has no bound, and nobody says so. OpenAI sends
# each prompt in a list, which Ollama refuses: none of its calls works.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_pypi langchain-openai==1.7.4 openai==3.57.0
cat >"$lab/ask.py" <<'PY'
import sys
from langchain_openai import ChatOpenAI, OpenAI
import openai
# The one thing that the model may write, so that a reply has an end.
schema = {"type": "string", "enum": ["one two three four five"]}
form = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema}}
to = dict(model="smol", base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
reply = ChatOpenAI(**to, max_tokens=2).bind(response_format=form).invoke("Count.")
chat = f"{reply.content} {reply.response_metadata['finish_reason']}"
plain = openai.OpenAI(api_key="none", base_url=to["base_url"]).chat.completions.create(model="smol", max_tokens=2, response_format=form, messages=[{"role": "user", "content": "Count."}])
try:
    completion = OpenAI(**to, max_tokens=2).invoke("Count.")
except openai.BadRequestError as error:
    completion = error.status_code
print(f"openai-python, max_tokens 2: {plain.choices[0].finish_reason}; ChatOpenAI, max_tokens 2: {chat}; OpenAI: {completion}")
PY
seen=$(timeout 120 "$lab/venv/bin/python" "$lab/ask.py" "$ollama")

conclude "$ollama_version, langchain-openai 1.7.4 (PyPI)" 'all are cut: length' "$seen" \
	'openai-python, max_tokens 2: length; ChatOpenAI, max_tokens 2: "one two three four five" stop; OpenAI: 400'
