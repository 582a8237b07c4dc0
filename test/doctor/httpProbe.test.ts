import { once } from "node:events";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import t, { type Test } from "tap";
import { hearOllama } from "../../src/host/ollama/answers.ts";
import { knock } from "../../src/system/httpProbe.ts";
import { makeAuthority } from "../support/certificates.ts";

const here = "127.0.0.1";
const tlsHandshake = 0x16;

/** Listens until the test ends; `greeted` says with what each connection began. */
async function listen(
	t: Test,
	take: (socket: Socket, first: Buffer) => unknown,
): Promise<{ port: number; greeted: string[] }> {
	const greeted: string[] = [];
	const server = createServer((socket) => {
		socket.on("error", () => {});
		socket.once("data", (first: Buffer) => {
			greeted.push(first[0] === tlsHandshake ? "TLS" : "HTTP");
			take(socket, first);
		});
	}).listen(0, here);
	t.teardown(() => server.close());
	await once(server, "listening");
	return { port: (server.address() as AddressInfo).port, greeted };
}

/** A TLS proxy before something that answers so; what comes without TLS gets `plain`. */
async function proxy(
	t: Test,
	answers: Readonly<Record<string, string>>,
	plain: string,
) {
	const pair = await (await makeAuthority(t)).issue({ names: ["elsewhere"] });
	const behind = createHttps(pair, ({ url = "" }, reply) => {
		reply.statusCode = answers[url] === undefined ? 404 : 200;
		reply.end(answers[url]);
	}).listen(0, here);
	t.teardown(() => behind.close());
	await once(behind, "listening");
	return listen(t, (socket, first) => {
		if (first[0] !== tlsHandshake) return socket.end(plain);
		const on = connect((behind.address() as AddressInfo).port, here);
		on.on("error", () => {});
		on.write(first);
		socket.pipe(on).pipe(socket);
	});
}

const ollama = {
	"/api/ps": '{"models":[]}',
	"/api/version": '{"version":"1"}',
};

for (const [name, plain] of [
	["closes", ""],
	["sends an alert", "\x15\x03\x01\x00\x02\x02\x0a"],
	["answers 400", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"],
	[
		"leads elsewhere",
		"HTTP/1.1 301 Moved\r\nlocation: https://x/\r\ncontent-length: 0\r\n\r\n",
	],
] as const)
	t.test(
		`Ollama is heard behind a TLS port that ${name} without`,
		async (t) => {
			const { port } = await proxy(t, ollama, plain);
			t.equal(await hearOllama(here, port), "yes");
			t.match(await knock(here, port, "/api/version"), {
				kind: "answer",
				status: 200,
				body: '{"version":"1"}',
			});
		},
	);

t.test("another server behind TLS is not Ollama", async (t) => {
	const { port } = await proxy(t, { "/": "a page" }, "");
	t.equal(await hearOllama(here, port), "no");
});

t.test("a TLS port that wants to hear its name may be anybody's", async (t) => {
	for (const alert of ["\x50", "\x70"]) {
		const { port } = await listen(t, (socket, first) =>
			socket.end(
				first[0] === tlsHandshake ? `\x15\x03\x03\x00\x02\x02${alert}` : "",
			),
		);
		t.equal(await hearOllama(here, port), "unclear");
	}
});

t.test("what answers in another language is not asked over TLS", async (t) => {
	for (const answer of [
		"SSH-2.0-OpenSSH_9.2p1\r\n",
		"220 mail.example ESMTP\r\n",
		"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
	]) {
		const { port, greeted } = await listen(t, (socket) => socket.end(answer));
		t.equal(await hearOllama(here, port), "no", answer);
		t.notOk(greeted.includes("TLS"));
	}
});

t.test("a port that closes on everything is not Ollama", async (t) => {
	const { port } = await listen(t, (socket) => socket.end());
	t.equal(await hearOllama(here, port), "no");
	t.match(await knock(here, port, "/"), { kind: "failed" });
});
