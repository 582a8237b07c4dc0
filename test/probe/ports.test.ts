import { createServer, type RequestListener, request } from "node:http";
import { createServer as createTlsServer } from "node:https";
import {
	type AddressInfo,
	createServer as createTcpServer,
	type Server,
} from "node:net";
import { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import t from "tap";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { knockAtAll } from "../../src/probe/knock.ts";
import { wayTo } from "../../src/probe/place.ts";
import { checkPublic } from "../../src/probe/ports.ts";
import { requireTool } from "../support/tools.ts";
import { makeAuthority } from "./authority.ts";
import { startMiddleman } from "./middlemen.ts";

type Tap = Parameters<typeof makeAuthority>[0];

/** Knocks at one port of this device, and asks for Ollama there. */
async function knockAt(port: number, language: "http" | "https" = "http") {
	const knocks = await knockAtAll(["127.0.0.1"], [port], {
		host: "box.example",
		language: () => language,
	});
	return knocks[0];
}

function* forever() {
	for (;;) yield "<p>".repeat(1_000);
}

/** Whether Ollama is there, as the report has it. */
async function judge(port: number) {
	const ways = [await wayTo("127.0.0.1")];
	const results = await checkPublic("box.example", ways, [port]);
	return results.find(({ id }) => id === "probe.public.ollama");
}

async function listen(t: Tap, server: Server): Promise<number> {
	await new Promise<void>((resolve) =>
		server.listen(0, "127.0.0.1", () => resolve()),
	);
	t.teardown(() => server.close());
	return (server.address() as AddressInfo).port;
}

function startPlain(t: Tap, answer: RequestListener): Promise<number> {
	return listen(t, createServer(answer));
}

/** Passes everything on, Host too. */
function passOn(target: string): RequestListener {
	return ({ url: path, method, headers }, res) => {
		request(
			new URL(path ?? "/", target),
			{ method, headers: { ...headers } },
			(reply) => {
				res.writeHead(reply.statusCode ?? 500, reply.headers);
				reply.pipe(res);
			},
		).end();
	};
}

/**
 * A server for TLS, which remembers the names that it was asked for.
 *
 * @param status what is said to plain HTTP; without it the connection is closed
 */
async function startTls(t: Tap, answer: RequestListener, status?: number) {
	const names: unknown[] = [];
	const authority = await makeAuthority(t);
	const secure = createTlsServer(
		await authority.selfSign("box.example"),
		(req, res) => {
			names.push((req.socket as TLSSocket).servername);
			answer(req, res);
		},
	);
	if (status === undefined) return { port: await listen(t, secure), names };
	const front = createTcpServer((socket) => {
		socket.once("data", (first: Buffer) => {
			if (first[0] !== 22)
				return socket.end(
					`HTTP/1.0 ${status} No\r\n\r\nThis port speaks HTTPS.\n`,
				);
			socket.pause();
			socket.unshift(first);
			secure.emit("connection", socket);
		});
	});
	return { port: await listen(t, front), names };
}

function portOf(url: string): number {
	return Number(new URL(url).port);
}

t.test(
	"Ollama is known by its own words, Open WebUI is not Ollama",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		t.match(await knockAt(portOf(await startMiddleman(t, standIn.url))), {
			state: "open",
			ollama: "0.35.0",
		});
		const webUi = await startMiddleman(t, standIn.url, {
			answers: (req, res) => {
				// As Open WebUI answers, without a login.
				if (req.url === "/api/version")
					res.end('{"version":"0.6.5","deployment_id":""}');
				else res.end("<!doctype html><title>Open WebUI</title>");
				return true;
			},
		});
		const seen = await knockAt(portOf(webUi));
		t.match(seen, { state: "open", other: "HTTP 200" });
		t.equal(seen?.ollama, undefined);
	},
);

t.test("an Ollama that wants a Host of its own is found", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	t.match(await knockAt(portOf(standIn.url)), { ollama: "0.35.0" });
	const guarded = await startMiddleman(t, standIn.url, {
		answers: (_req, res) => {
			res.writeHead(403).end();
			return true;
		},
	});
	t.match(await knockAt(portOf(guarded)), { other: "HTTP 403" });
});

t.test(
	"an Ollama behind a proxy for one name is found, also by HTTPS",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const names: (string | undefined)[] = [];
		const url = await startMiddleman(t, standIn.url, {
			answers: (req, res) => {
				names.push(req.headers.host);
				if (req.headers.host?.split(":")[0] === "box.example") return false;
				res.writeHead(404).end();
				return true;
			},
		});
		t.match(await knockAt(portOf(url)), { ollama: "0.35.0" });
		t.equal(names[0], `box.example:${portOf(url)}`);

		// Whether the certificate is good does not matter to whoever comes for Ollama.
		const { port } = await startTls(t, passOn(url));
		t.match(await knockAt(port, "https"), { state: "open", ollama: "0.35.0" });
		// What speaks no TLS on a port for it is asked all the same.
		t.match(await knockAt(portOf(url), "https"), { ollama: "0.35.0" });
	},
);

t.test(
	"an Ollama that a funnel or a proxy with TLS leads to is found, with the name that the proxy goes by",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const { port, names } = await startTls(t, passOn(standIn.url));
		t.match(await knockAt(port, "https"), { ollama: "0.35.0", isLedTo: true });
		t.match(await judge(port), {
			state: "finding",
			severity: "critical",
			fix: /llamagate doctor/,
		});
		t.strictSame([...new Set(names)], ["box.example"]);
	},
);

t.test("an Ollama of which a proxy passes /api/ alone is found", async (t) => {
	if (!requireTool(t, "openssl")) return;
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const page = "<!doctype html>".padEnd(50_000);
	const hides = (status: number, body: string): RequestListener => {
		const pass = passOn(standIn.url);
		return (req, res) => {
			if (req.url?.startsWith("/api/") === true) return pass(req, res);
			res.writeHead(status).end(body);
		};
	};
	const found = { state: "open", ollama: "0.35.0" };
	const { port } = await startTls(t, hides(404, ""));
	t.match(await knockAt(port, "https"), found);
	t.match(await knockAt(await startPlain(t, hides(404, ""))), found);
	// A page so long that the version is not read.
	t.match(await knockAt(await startPlain(t, hides(200, page))), {
		ollama: "of an unknown version",
	});
	// A server that closes after each reply.
	const closing = await startPlain(t, (req, res) => {
		res.setHeader("connection", "close");
		hides(404, "")(req, res);
	});
	t.match(await knockAt(closing), { ollama: "of an unknown version" });
	// A list that is somebody else's, and none without a key.
	for (const [status, body] of [
		[200, '{"items":[]}'],
		[401, '{"models":[]}'],
	] as const) {
		const other = await startPlain(t, (req, res) => {
			if (req.url === "/api/version") return res.end('{"version":"1"}');
			res.writeHead(status).end(body);
		});
		const seen = await knockAt(other);
		t.match(seen, { other: `HTTP ${status}` });
		t.equal(seen?.ollama, undefined);
	}
});

t.test("TLS is tried on a port that is not asked for it", async (t) => {
	if (!requireTool(t, "openssl")) return;
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const { port } = await startTls(t, passOn(standIn.url));
	t.match(await knockAt(port), { state: "open", ollama: "0.35.0" });
	t.match(await judge(port), { state: "finding", severity: "critical" });
	// Go and nginx say to plain HTTP that they want TLS.
	for (const status of [301, 400]) {
		const saying = await startTls(t, passOn(standIn.url), status);
		t.match(await knockAt(saying.port), { state: "open", ollama: "0.35.0" });
	}
	// A gate is told by its refusal over TLS.
	const gate = await startTls(t, (_req, res) => res.writeHead(401).end(), 400);
	t.match(await judge(gate.port), { state: "ok" });
});

t.test("an open port that does not say what it is, is no pass", async (t) => {
	const silent = createServer((req) => req.socket.destroy());
	t.match(await judge(await listen(t, silent)), {
		state: "unknown",
		evidence: [/says nothing in HTTP, plain or over TLS/, /ss -ltnp/],
	});
	for (const status of [400, 502])
		t.match(
			await judge(
				await startPlain(t, (_req, res) => res.writeHead(status).end()),
			),
			{
				state: "unknown",
				evidence: [new RegExp(`answers HTTP ${status}`), /ss -ltnp/],
			},
		);
	t.match(
		await judge(await startPlain(t, (_req, res) => res.writeHead(404).end())),
		{ state: "ok" },
	);
});

t.test("a port is asked a few times and no more, and for little", async (t) => {
	// Everything that makes for another question: it closes, it fails, it turns away.
	let connections = 0;
	const server = createServer((req, res) => {
		res.setHeader("connection", "close");
		res.writeHead(req.url === "/" ? 502 : 403).end();
	}).on("connection", () => {
		connections += 1;
	});
	const port = await listen(t, server);
	t.match(await knockAt(port), { other: "HTTP 502", isUnclear: true });
	t.equal(connections, 5, "two under each name, and one with TLS");

	const sent: Promise<number>[] = [];
	const endless = await startPlain(t, ({ socket }, res) => {
		sent.push(
			new Promise((resolve) =>
				// A reset comes before it as an error, which HTTP's server hears.
				socket.once("close", () => resolve(socket.bytesWritten)),
			),
		);
		Readable.from(forever()).pipe(res);
	});
	t.match(await knockAt(endless), { state: "open", other: "HTTP 200" });
	// 16 KiB, and what the buffers between the two hold.
	for (const sizeBytes of await Promise.all(sent))
		t.ok(sizeBytes < 32 * 2 ** 20, `${sizeBytes} bytes`);

	// What was said to a stranger's Host stays, where the other hears something else.
	const named = await startPlain(t, ({ headers }, res) => {
		const isStranger = headers.host?.startsWith("box.example") === true;
		res.writeHead(isStranger ? 403 : 502).end();
	});
	t.match(await judge(named), {
		state: "ok",
		evidence: [String, /answers HTTP 403/],
	});
});

t.test("a port at which nothing says anything is open", async (t) => {
	const server = createServer((req) => req.socket.destroy());
	const port = await listen(t, server);
	t.match(await knockAt(port), { state: "open" });
	await new Promise((resolve) => server.close(resolve));
	t.match(await knockAt(port), { state: "closed", code: "ECONNREFUSED" });
});
