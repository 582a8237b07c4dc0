#!/usr/bin/env bash
# The package ollama makes a tool for the model of a Python function that it is given,
# by its types and its docstring.
# Guess: the tool has each parameter's type as JSON Schema says it: of what a list is, which
# words a Literal has, a choice where there are two types; what has a default is not required.
# Seen: a list is of nothing, a Literal is any string, int | str has "integer, string" for a
# type, which JSON Schema does not know, and what has a default is required.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_pypi ollama==0.6.3
cat >"$lab/tool.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Literal
import ollama

asked = {}
class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"message":{"role":"assistant","content":"a"}}')
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()

def weather(places: list[str], unit: Literal["C", "F"], until: int | str, days: int = 3):
    """
    The weather.

    Args:
        places: names
        unit: of degrees
        until: an hour or a word
        days: how many
    """

ollama.Client(host=f"http://127.0.0.1:{server.server_port}").chat("a", tools=[weather])
parameters = asked["tools"][0]["function"]["parameters"]
said = {}
for name, schema in parameters["properties"].items():
    # They come in the order of a set.
    schema["type"] = ", ".join(sorted(schema["type"].split(", ")))
    said[name] = {key: value for key, value in schema.items() if key != "description"}
print("; ".join([*(f"{name}: {json.dumps(schema)}" for name, schema in said.items()), "required: " + " ".join(parameters["required"])]))
PY
seen=$(cd "$lab" && venv/bin/python tool.py)

conclude 'ollama 0.6.3 (PyPI)' \
	'places has items; unit has enum; until is a choice; required: places unit until' "$seen" \
	'places: {"type": "array"}; unit: {"type": "string"}; until: {"type": "integer, string"}; days: {"type": "integer"}; required: places unit until days'
