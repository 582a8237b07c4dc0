#!/usr/bin/env bash
# A stream of events that ends within one: the server was stopped, say. By the standard
# "any pending data must be discarded" then; an event is whole with its empty line.
# Guess: sseclient-py and httpx-sse drop it.
# Seen: httpx-sse does; sseclient-py hands it on as a whole event. What has an id keeps it
# for the next events by the standard, and by httpx-sse; sseclient-py forgets it.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_pypi sseclient-py==1.9.0 httpx-sse==0.4.3 httpx==0.28.1
cat >"$lab/read.py" <<'PY'
import httpx, httpx_sse, sseclient
stream = b"id: 7\ndata: 100\n\ndata: 200\n\ndata: 30"
def said(events):
    return ", ".join(f"{event.data} (id {event.id or 'none'})" for event in events)
def answer(request):
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
with httpx.Client(transport=httpx.MockTransport(answer)) as client:
    with httpx_sse.connect_sse(client, "GET", "http://lab.example/") as source:
        by_httpx = said(source.iter_sse())
print(f"httpx-sse: {by_httpx}; sseclient-py: {said(sseclient.SSEClient(iter([stream])).events())}")
PY
seen=$("$lab/venv/bin/python" "$lab/read.py")

conclude 'sseclient-py 1.9.0, httpx-sse 0.4.3 (PyPI)' 'both: 100 (id 7), 200 (id 7)' "$seen" \
	'httpx-sse: 100 (id 7), 200 (id 7); sseclient-py: 100 (id 7), 200 (id none), 30 (id none)'
