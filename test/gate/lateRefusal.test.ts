import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { AccessLog } from "../../src/gate/accessLog.ts";
import { ConnectionTable } from "../../src/gate/connection.ts";
import { Exchange } from "../../src/gate/exchange.ts";
import { sendRefusal } from "../../src/gate/refusal.ts";
import { readHead } from "../../src/gate/requestHead.ts";
import { createLog } from "../../src/log.ts";
import { matchRoute } from "../../src/ollama/routes.ts";
import { eventually, type LogLine } from "../support/gate.ts";
import { head, openRaw, within } from "../support/raw.ts";

/** A server whose requests are refused after something has begun to answer them. */
async function serve(
	t: { teardown(action: () => unknown): unknown },
	begin: (res: ServerResponse) => void,
) {
	const lines: LogLine[] = [];
	const sink = {
		write: (line: string) => void lines.push(JSON.parse(line) as LogLine),
	};
	const accessLog = new AccessLog(createLog("info", sink), sink);
	const table = new ConnectionTable(() => 10);
	const given: string[] = [];
	const server = createServer((req, res) => {
		const connection = table.open(req.socket, false);
		if (typeof connection === "string") throw new Error(connection);
		const exchange = new Exchange(
			...([accessLog, req, res, connection] as const),
			readHead(req.rawHeaders),
			matchRoute(req.method ?? "", req.url ?? ""),
			false,
		);
		exchange.atEnd((outcome) => given.push(outcome));
		begin(res);
		const refusal = { status: 503, reason: "too_late", message: "no" };
		sendRefusal(exchange, refusal);
		sendRefusal(exchange, refusal);
	}).listen(0, "127.0.0.1");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	await once(server, "listening");
	const { port } = server.address() as AddressInfo;
	return { port, lines, given };
}

const cases: Readonly<Record<string, (res: ServerResponse) => void>> = {
	"its head alone is out": (res) => res.writeHead(200).flushHeaders(),
	"a part of it is out": (res) => {
		res.writeHead(200, { "content-length": 20 });
		res.write('{"models":[');
	},
	"it is a stream": (res) => {
		res.writeHead(200, { "content-type": "text/event-stream" });
		res.write("data: {}\n\n");
	},
	"all of it but its end is out": (res) => {
		res.writeHead(200, { "transfer-encoding": "chunked" });
		res.write('{"models":[]}');
	},
};

for (const [what, begin] of Object.entries(cases))
	t.test(
		`a reply that is refused when ${what} is cut, and its exchange is over`,
		async (t) => {
			const { port, lines, given } = await serve(t, begin);
			const client = await openRaw(port);
			t.teardown(() => client.destroy());
			client.write(head("GET /api/tags HTTP/1.1", "Host: gate"));
			await eventually(() => lines.length > 0);
			t.match(lines, [{ outcome: "cut", reason: "too_late" }]);
			await within(client.closed, "the cut");
			const said = client.text();
			t.notMatch(said, "503", "no second head behind the first");
			t.notMatch(said, "too_late");
			t.notMatch(said, /^0\r\n\r\n$/m, "no end that could pass for whole");
			t.strictSame(given, ["cut"], "what it held is given back, once");
			t.equal(lines.length, 1);
		},
	);
