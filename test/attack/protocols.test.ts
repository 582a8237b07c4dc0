import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	isTurnedAway,
	openRaw,
	shows,
	strayCalls,
} from "../support/raw.ts";

const key = shows(testKeys.owner);

t.test("bytes that are another protocol are turned away", async (t) => {
	const gate = await startGate(t);
	const bytes: Record<string, string | Buffer> = {
		"HTTP/0.9": "GET /api/tags\r\n\r\n",
		"HTTP/0.9 with a query": `GET /api/tags?key=${testKeys.owner}\r\n\r\n`,
		"HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/2 preface and frames": Buffer.concat([
			Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
			Buffer.from("000000040000000000", "hex"),
		]),
		"TLS ClientHello": Buffer.from(
			`16030100c8010000c40303${"ab".repeat(32)}20${"cd".repeat(32)}0004130113020100007700`,
			"hex",
		),
		"a TLS alert": Buffer.from("15030100020228", "hex"),
		SSH: "SSH-2.0-OpenSSH_9.9\r\n",
		SMTP: "EHLO gate\r\n",
		RTSP: "DESCRIBE rtsp://gate/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
		Redis: "*1\r\n$4\r\nPING\r\n",
		"a PROXY header": `PROXY TCP4 100.64.0.1 100.64.0.2 1 2\r\n${head("GET / HTTP/1.1", "Host: gate")}`,
		"a PROXY header, version 2": Buffer.concat([
			Buffer.from("0d0a0d0a000d0a515549540a2111000c", "hex"),
			Buffer.from("64400001644000020001002b", "hex"),
			Buffer.from(head("GET / HTTP/1.1", "Host: gate")),
		]),
		NULs: Buffer.alloc(10_000),
		"high bytes": Buffer.alloc(10_000, 0xff),
		"a reply": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.2": head("GET /api/tags HTTP/1.2", "Host: gate", key),
		"HTTP/3.0": head("GET /api/tags HTTP/3.0", "Host: gate", key),
		"HTTP/11": head("GET /api/tags HTTP/11", "Host: gate", key),
		"HTTP/1.10": head("GET /api/tags HTTP/1.10", "Host: gate", key),
		"http/1.1": head("GET /api/tags http/1.1", "Host: gate", key),
		"HTTP/ 1.1": head("GET /api/tags HTTP/ 1.1", "Host: gate", key),
		"ICE/1.0": head("SOURCE /api/tags ICE/1.0", "Host: gate", key),
	};
	for (const [what, attempt] of Object.entries(bytes)) {
		const outcome = await attack(gate, attempt);
		t.ok(isTurnedAway(outcome), `${what} (${outcome.status})`);
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});

t.test("HTTP is 1.0 or 1.1, also for those who have a key", async (t) => {
	const gate = await startGate(t);
	const requests: Record<string, string> = {
		"HTTP/2.0": head("GET /api/tags HTTP/2.0", "Host: gate", key),
		"HTTP/2.0 without Host": head("GET /api/tags HTTP/2.0", key),
		"HTTP/0.9": head("GET /api/tags HTTP/0.9", "Host: gate", key),
		"no version, and yet headers": `GET /api/tags\r\n${head("Host: gate", key)}`,
		"no version, a bare LF, and yet headers": `GET /api/tags\n${head("Host: gate", key)}`,
	};
	for (const [what, bytes] of Object.entries(requests)) {
		const { status, replies } = await attack(gate, bytes);
		// 505 is what RFC 9110, 15.6.6 has for it.
		t.ok(status >= 400, `${what} (${status}) ${replies[0]?.body.slice(0, 40)}`);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	const old = await attack(gate, head("GET /api/tags HTTP/1.0", key));
	t.equal(old.status, 200, "HTTP/1.0 needs no Host");
	const stranger = await attack(gate, head("GET /api/tags HTTP/1.0"));
	t.equal(stranger.status, 401, "but a key");
});

t.test("a method that is not the route's is turned away", async (t) => {
	const gate = await startGate(t);
	const methods = [
		...["TRACE", "OPTIONS", "PUT", "PATCH", "PROPFIND", "PROPPATCH", "MKCOL"],
		...["COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "MERGE", "PURGE"],
		...["LINK", "UNLINK", "SUBSCRIBE", "NOTIFY", "M-SEARCH", "QUERY", "SOURCE"],
		...[
			"get",
			"Get",
			"post",
			"GETX",
			"FOO",
			"GET/",
			"G\0T",
			"\xc7ET",
			"",
			"PRI",
		],
		...["DEBUG", "TRACK", "CONNECTX", "A".repeat(10_000)],
	];
	for (const method of methods) {
		for (const lines of [["Host: gate"], ["Host: gate", key]]) {
			for (const target of ["/api/tags", "/api/chat", "*"]) {
				const outcome = await attack(
					gate,
					head(`${method} ${target} HTTP/1.1`, ...lines),
				);
				t.ok(
					isTurnedAway(outcome),
					`${JSON.stringify(method.slice(0, 20))} ${target} (${outcome.status})`,
				);
			}
		}
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});

t.test(
	"a method that is not known is told so, with a key and without",
	async (t) => {
		const gate = await startGate(t);
		for (const lines of [["Host: gate"], ["Host: gate", key]]) {
			const client = await openRaw(gate.port);
			client.write(head("FOO /api/tags HTTP/1.1", ...lines));
			await client.closed;
			const [reply] = client.replies();
			t.equal(reply?.status, 400);
			t.match(
				reply?.body.toString(),
				"this does not begin with a method that is known here",
			);
		}
	},
);

t.test(
	"a tunnel is refused with the methods that there are: none",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.write(head("CONNECT gate:443 HTTP/1.1", "Host: gate", key));
		await client.closed;
		const [reply] = client.replies();
		t.equal(reply?.status, 405);
		t.equal(reply?.headers.allow, "");
	},
);

t.test("the gate is nobody's tunnel", async (t) => {
	const gate = await startGate(t);
	const behind = head("GET /api/tags HTTP/1.1", "Host: gate", key);
	for (const target of [
		"gate:443",
		`127.0.0.1:${gate.standIn.port}`,
		"localhost:11434",
		"[::1]:11434",
		"/api/tags",
		"*",
		"http://127.0.0.1/",
		"",
	]) {
		for (const lines of [["Host: gate"], ["Host: gate", key]]) {
			const client = await openRaw(gate.port);
			client.write(head(`CONNECT ${target} HTTP/1.1`, ...lines) + behind);
			await client.closed;
			const replies = client.replies();
			t.ok(
				replies.length <= 1 &&
					replies.every(({ status }) => status >= 400 && status < 500),
				`CONNECT ${target} (${replies[0]?.status ?? "closed"})`,
			);
		}
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});
