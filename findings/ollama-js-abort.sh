#!/usr/bin/env bash
# ollama-js has abort(), which its readme describes for streams.
# Guess: it also ends a whole reply (stream: false) that is under way, as the button
# "Stop" of a page would want it to.
# Seen: the request goes on and its promise stays pending; the model works to the
# end for nobody. Only streams are aborted.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm ollama@0.6.4
cat >"$lab/abort.mjs" <<'JS'
import { once } from "node:events";
import http from "node:http";
import { Ollama } from "ollama";
async function told(stream) {
	const server = http.createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const client = new Ollama({ host: `http://127.0.0.1:${server.address().port}` });
	const arrived = once(server, "request");
	const reply = client.chat({ model: "m", messages: [], stream });
	const outcome = reply.then(async (pieces) => {
		for await (const _ of pieces);
	}).then(() => "ended", () => "rejected");
	const [request, response] = await arrived;
	request.resume();
	if (stream) {
		response.write('{"message":{"content":"a"},"done":false}\n');
		await reply;
	}
	const closed = once(response, "close").then(() => "closed");
	client.abort();
	// An aborted request is closed within milliseconds.
	const open = new Promise((resolve) => setTimeout(resolve, 3000, "open after 3 s"));
	return `${await Promise.race([closed, open])}, ${await Promise.race([outcome, open.then(() => "pending")])}`;
}
console.log(`a stream: ${await told(true)}; a whole reply: ${await told(false)}`);
process.exit();
JS
seen=$(timeout 30 node "$lab/abort.mjs")

conclude 'ollama 0.6.4 (npm)' 'a stream: closed, rejected; a whole reply: closed, rejected' "$seen" \
	'a stream: closed, rejected; a whole reply: open after 3 s, pending'
