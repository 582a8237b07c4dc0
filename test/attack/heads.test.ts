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

t.test(
	"a head that is too large is turned away, however it is cut",
	async (t) => {
		const gate = await startGate(t);
		const fill = (count: number, line: (index: number) => string) =>
			Array.from({ length: count }, (_, index) => line(index));
		const heads: Record<string, readonly string[]> = {
			"one large header": [`X: ${"y".repeat(20_000)}`],
			"one huge header": [`X: ${"y".repeat(2_000_000)}`],
			"one large name": [`${"X".repeat(20_000)}: y`],
			"a large Authorization": [`Authorization: Bearer ${"y".repeat(20_000)}`],
			"a large Cookie": [`Cookie: ${"a=b; ".repeat(5_000)}`],
			"a large Connection": [`Connection: ${"close, ".repeat(5_000)}`],
			"hundreds of small ones": fill(
				600,
				(n) => `X-Header-${n}: ${"y".repeat(20)}`,
			),
			"thousands of small ones": fill(20_000, (n) => `X${n}: y`),
			"thousands of empty ones": fill(20_000, () => "x:"),
			"thousands of Hosts": fill(5_000, () => "Host: gate"),
			"thousands of keys": fill(1_000, () => key),
		};
		for (const [what, lines] of Object.entries(heads)) {
			for (const last of [key, "X: y"]) {
				const outcome = await attack(
					gate,
					head("GET /api/tags HTTP/1.1", "Host: gate", ...lines, last),
				);
				t.ok(isTurnedAway(outcome), `${what} (${outcome.status})`);
			}
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test("a head without an end is cut off", async (t) => {
	const gate = await startGate(t);
	for (const [start, more] of [
		["GET /api/tags HTTP/1.1\r\n", "X: y\r\n"],
		["GET /api/tags HTTP/1.1\r\nX: ", "y"],
		["GET /", "a"],
		["", "A"],
		["GET / HTTP/1.1\r\nX", "-"],
	] as const) {
		const client = await openRaw(gate.port);
		client.write(start);
		let sent = 0;
		// As fast as it is taken; far more than any head may have, and yet not for ever.
		const block = more.repeat(4_096);
		while (!client.isClosed() && sent < 64 * 2 ** 20) {
			client.write(block);
			sent += block.length;
			if (client.socket.writableNeedDrain)
				await Promise.race([
					new Promise((resolve) => client.socket.once("drain", resolve)),
					client.closed,
				]);
		}
		await client.closed;
		t.ok(
			client.replies().every(({ status }) => status >= 400 && status < 500),
			`${JSON.stringify(start)} and then ${JSON.stringify(more)} for ever`,
		);
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});

t.test(
	"as many headers as fit change nothing about who is asking",
	async (t) => {
		const gate = await startGate(t);
		// Node forgets header lines past a count of its own; they must not hide a second key or length.
		const many = Array.from({ length: 1_990 }, () => "x:");
		const behind: Record<string, readonly string[]> = {
			"a second key": [shows(testKeys.reader)],
			"a wrong key": [shows(testKeys.wrong)],
			"a second Host": ["Host: other"],
			"a body": ["Transfer-Encoding: chunked"],
		};
		for (const [what, lines] of Object.entries(behind)) {
			const outcome = await attack(
				gate,
				`${head("GET /api/tags HTTP/1.1", "Host: gate", key, ...many, ...lines)}0\r\n\r\n`,
			);
			t.ok(isTurnedAway(outcome), `${what} (${outcome.status})`);
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test("a Host that is missing or doubled is turned away", async (t) => {
	const gate = await startGate(t);
	const heads: Record<string, readonly string[]> = {
		missing: [key],
		"twice the same": ["Host: gate", "Host: gate", key],
		"twice, different": ["Host: gate", "Host: 127.0.0.1:11434", key],
		"twice, in another case": ["Host: gate", key, "HOST: gate"],
	};
	for (const [what, lines] of Object.entries(heads)) {
		const { status } = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", ...lines),
		);
		t.equal(status, 400, what);
		const stranger = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", ...lines.filter((line) => line !== key)),
		);
		t.equal(stranger.status, 401, `${what}, without a key`);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test(
	"what a Host says decides nothing, and Ollama never sees it",
	async (t) => {
		const gate = await startGate(t);
		const hosts = [
			"gate",
			"127.0.0.1:11434",
			"localhost",
			"ollama.internal",
			"0.0.0.0",
			"[::1]:11434",
			"evil.example",
			"",
			" ",
			"a b",
			"gate, other",
			"http://x/",
			"../../etc/passwd",
			'{"event":"auth_failed"}',
			"\xff\xfe",
			"gate:99999999999",
			"x".repeat(8_000),
		];
		for (const host of hosts) {
			const what = JSON.stringify(host.slice(0, 40));
			const stranger = await attack(
				gate,
				head("GET /api/tags HTTP/1.1", `Host: ${host}`),
			);
			t.equal(stranger.status, 401, `${what} lets nobody in`);
			const { status } = await attack(
				gate,
				head("GET /api/tags HTTP/1.1", `Host: ${host}`, key),
			);
			t.equal(status, 200, `${what} shuts nobody out`);
			t.equal(
				gate.standIn.calls.at(-1)?.headers.host,
				`127.0.0.1:${gate.standIn.port}`,
			);
		}
		t.equal(gate.standIn.calls.length, hosts.length);
	},
);

t.test("a header's name counts only when it is spelled exactly", async (t) => {
	const gate = await startGate(t);
	const owner = testKeys.owner;
	const lines = [
		`X_Api_Key: ${owner}`,
		`X-Api_Key: ${owner}`,
		`X_API_KEY: ${owner}`,
		`XApiKey: ${owner}`,
		`X-Api-Key-: ${owner}`,
		`-X-Api-Key: ${owner}`,
		`X.Api.Key: ${owner}`,
		`HTTP_X_API_KEY: ${owner}`,
		`Api-Key: ${owner}`,
		`Authorization_: Bearer ${owner}`,
		`_Authorization: Bearer ${owner}`,
		`HTTP_AUTHORIZATION: Bearer ${owner}`,
		`Authorisation: Bearer ${owner}`,
		`Authorization : Bearer ${owner}`,
		`Authorization\t: Bearer ${owner}`,
		`Authorization\0: Bearer ${owner}`,
		` Authorization: Bearer ${owner}`,
		`Auth orization: Bearer ${owner}`,
		`"Authorization": Bearer ${owner}`,
		`Authorization;x: Bearer ${owner}`,
		`\xc3\xa5uthorization: Bearer ${owner}`,
		`Authorization\xa0: Bearer ${owner}`,
		`x-api-\xe2\x84\xaaey: ${owner}`,
		`X-Authorization: Bearer ${owner}`,
		`X-Auth-Token: ${owner}`,
		`Ocp-Apim-Subscription-Key: ${owner}`,
	];
	for (const line of lines) {
		const { status } = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", "Host: gate", line),
		);
		// 400 is the parser's word: such a name is no token.
		t.ok(
			status === 401 || status === 400,
			`${JSON.stringify(line.slice(0, 24))} (${status})`,
		);
	}
	for (const name of ["authorization", "AUTHORIZATION", "aUTHORIZATION"]) {
		const { status } = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", "Host: gate", `${name}: Bearer ${owner}`),
		);
		t.equal(status, 200, `${name} is the same name (RFC 9110, 5.1)`);
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
});
