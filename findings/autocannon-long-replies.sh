#!/usr/bin/env bash
# autocannon's -t is "the number of seconds to wait for a response", 10 if nothing is
# said. A model's reply streams for longer, with a piece every tenth of a second.
# Guess: a reply that keeps coming is let come to its end, and is counted then.
# Seen: it is cut off, and a timeout counted, whatever arrives. And after each that is
# cut, the first piece on the new connection is counted as a reply of its own, without
# a status: requests and latency tell of quick replies where not one has ended.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm autocannon@9.0.0
cat >"$lab/load.mjs" <<'JS'
import { once } from "node:events";
import http from "node:http";
import autocannon from "autocannon";
let ended = 0;
const server = http.createServer((request, response) => {
	request.resume();
	response.writeHead(200, { "Content-Type": "text/event-stream" });
	const sending = setInterval(() => response.write("data: {}\n\n"), 100);
	const end = setTimeout(() => {
		ended++;
		response.end();
	}, 4000);
	response.on("close", () => {
		clearInterval(sending);
		clearTimeout(end);
	});
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const url = `http://127.0.0.1:${server.address().port}`;
const told = async (timeout) => {
	ended = 0;
	const { requests, timeouts, latency, statusCodeStats } = await autocannon({ url, connections: 1, duration: 9, timeout });
	const quick = latency.max === 0 ? "none" : latency.max < 1000 ? "below a second" : "above";
	return `${ended} ended, ${timeouts > 0 ? "timeouts" : "no timeouts"}, ${requests.total === ended ? "as many" : "more"} replies counted, statuses ${Object.keys(statusCodeStats)}, latency ${quick}`;
};
console.log(`-t 2: ${await told(2)}; -t 6: ${await told(6)}`);
process.exit();
JS
seen=$(timeout 60 node "$lab/load.mjs")

conclude 'autocannon 9.0.0 (npm)' '-t 2 and -t 6: 2 ended, no timeouts, as many replies counted, statuses 200, latency above' "$seen" \
	'-t 2: 0 ended, timeouts, more replies counted, statuses undefined, latency below a second; -t 6: 2 ended, no timeouts, as many replies counted, statuses 200, latency above'
