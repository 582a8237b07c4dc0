import { once } from "node:events";
import { rename, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import { request } from "node:https";
import { type AddressInfo, connect, type Socket } from "node:net";
import path from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import {
	type Authority,
	type IssuedPair,
	makeAuthority,
} from "../support/certificates.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import { testClock } from "../support/testClock.ts";
import { requireTool } from "../support/tools.ts";

const tls = { certFile: "gate.crt", keyFile: "gate.key" };

/** A gate with files of its own, without a relay in front. */
async function startTlsGate(
	t: Parameters<typeof startGate>[0],
	pair: IssuedPair,
	options: Parameters<typeof startGate>[1] = {},
) {
	const gate = await startGate(t, {
		...options,
		config: { ...options.config, listen: { tls } },
		files: { "gate.crt": pair.cert, "gate.key": pair.key },
	});
	return { ...gate, url: gate.url.replace("http:", "https:") };
}

async function replacePair(
	{ folder }: TestGate,
	{ cert, key }: IssuedPair,
): Promise<void> {
	for (const [name, text] of Object.entries({
		"gate.crt": cert,
		"gate.key": key,
	})) {
		await writeFile(path.join(folder, `${name}.new`), text, { mode: 0o600 });
		await rename(path.join(folder, `${name}.new`), path.join(folder, name));
	}
}

interface Reply {
	readonly status: number;
	readonly body: string;
}

async function ask(
	gate: TestGate,
	{ ca }: Authority,
	path = "/api/version",
	body?: string,
): Promise<Reply> {
	const req = request(`${gate.url}${path}`, {
		ca,
		agent: false,
		method: body === undefined ? "GET" : "POST",
		headers: bearer(testKeys.owner),
	});
	req.end(body);
	const [res] = await once(req, "response");
	let text = "";
	for await (const piece of res.setEncoding("utf8")) text += piece;
	return { status: res.statusCode, body: text };
}

async function shakeHands(
	{ port }: TestGate,
	{ ca }: Authority,
	more: object = {},
): Promise<TLSSocket> {
	const socket = connectTls({ host: "127.0.0.1", port, ca, ...more });
	await once(socket, "secureConnect");
	return socket;
}

async function serialOf(gate: TestGate, authority: Authority): Promise<string> {
	const socket = await shakeHands(gate, authority);
	const { serialNumber } = socket.getPeerCertificate();
	socket.destroy();
	return serialNumber;
}

async function readAll(socket: Socket): Promise<string> {
	let text = "";
	socket.setEncoding("latin1").on("data", (more: string) => {
		text += more;
	});
	socket.on("error", () => {});
	await once(socket, "close");
	return text;
}

const status = async ({ folder }: TestGate) =>
	JSON.parse(
		(await askDaemon(path.join(folder, "admin.sock"), "GET /status")).body,
	);

if (requireTool(t, "openssl")) {
	const authority = await makeAuthority(t);
	const pair = await authority.issue();

	t.test("a client that trusts the authority is served", async (t) => {
		const gate = await startTlsGate(t, pair);
		t.match(await ask(gate, authority), { status: 200, body: /version/ });
		t.match((await status(gate)).tls, {
			source: "files",
			names: ["server.tail1234.ts.net", "127.0.0.1"],
			ends: /^20/,
			problem: null,
		});
		const { body } = await askDaemon(
			path.join(gate.folder, "admin.sock"),
			"GET /metrics",
		);
		t.match(body, /^llamagate_certificate_in_force 1$/m);
		t.match(body, /^llamagate_certificate_expiry_timestamp_seconds \d{10}$/m);
		t.match(body, /^llamagate_certificate_refused 0$/m);
		t.match(body, /^llamagate_tls_handshakes_total\{result="done"\} 1$/m);
	});

	t.test("TLS 1.2 and 1.3 are spoken, and nothing older", async (t) => {
		const gate = await startTlsGate(t, pair);
		for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
			const socket = await shakeHands(gate, authority, {
				minVersion: version,
				maxVersion: version,
			});
			t.equal(socket.getProtocol(), version);
			socket.destroy();
		}
		const old = connectTls({
			...{ host: "127.0.0.1", port: gate.port, ca: authority.ca },
			...{ minVersion: "TLSv1", maxVersion: "TLSv1.1" },
			ciphers: "DEFAULT@SECLEVEL=0",
		});
		const [error] = await once(old, "error");
		t.match(error.code, /PROTOCOL_VERSION|UNSUPPORTED/);
	});

	t.test("who offers h2 and http/1.1 gets http/1.1", async (t) => {
		const gate = await startTlsGate(t, pair);
		const socket = await shakeHands(gate, authority, {
			ALPNProtocols: ["h2", "http/1.1"],
		});
		t.equal(socket.alpnProtocol, "http/1.1");
		socket.destroy();
	});

	t.test("plain HTTP is answered 400 that says which URL to use", async (t) => {
		const gate = await startTlsGate(t, pair);
		const socket = connect(gate.port, "127.0.0.1");
		socket.end("GET /api/tags HTTP/1.1\r\nHost: a\r\n\r\n");
		const reply = await readAll(socket);
		t.match(reply, /^HTTP\/1\.1 400 Bad Request\r\n/);
		t.match(reply, `use https://server.tail1234.ts.net:${gate.port}`);
		t.match(await gate.logged(({ reason }) => reason === "plain_http"), {
			status: 400,
			ip: "127.0.0.1",
		});
	});

	t.test("a foreign source is closed before the handshake", async (t) => {
		const gate = await startTlsGate(t, pair, {
			config: { sources: ["127.0.0.1/32"] },
		});
		const socket = connect({
			...{ port: gate.port, host: "127.0.0.1", localAddress: "127.0.0.3" },
		});
		const closed = once(socket, "close");
		socket.on("error", () => {});
		socket.resume();
		await closed;
		t.match(await gate.logged(({ reason }) => reason === "foreign_source"), {
			ip: "127.0.0.3",
		});
		t.equal((await ask(gate, authority)).status, 200);
	});

	t.test(
		"new files are in force at a reload, and streams go on with the old",
		async (t) => {
			const held: ServerResponse[] = [];
			const upstream = createServer((_req, res) => {
				res.setHeader("content-type", "application/x-ndjson");
				res.write('{"model":"a","message":{"content":"a"},"done":false}\n');
				held.push(res);
			});
			upstream.listen(0, "127.0.0.1");
			await once(upstream, "listening");
			t.teardown(() => upstream.close());
			const { port } = upstream.address() as AddressInfo;
			const gate = await startTlsGate(t, pair, {
				upstreamUrl: `http://127.0.0.1:${port}`,
			});
			const before = await serialOf(gate, authority);
			const body = JSON.stringify({ model: "a", messages: [] });
			const streams = Array.from({ length: 64 }, () =>
				ask(gate, authority, "/api/chat", body),
			);
			await eventually(() => held.length === 64);
			await replacePair(gate, await authority.issue());
			t.equal((await gate.daemon.reload()).ok, true);
			t.not(await serialOf(gate, authority), before);
			for (const res of held) res.end('{"model":"a","done":true}\n');
			for (const { status, body } of await Promise.all(streams))
				if (status !== 200 || !body.includes('"done":true'))
					t.fail(`a stream broke off: ${status} ${body.slice(-200)}`);
			t.pass("64 streams came to their end");
		},
	);

	t.test(
		"bad files at a reload are refused, and the old stay in force",
		async (t) => {
			const gate = await startTlsGate(t, pair);
			const before = await serialOf(gate, authority);
			const other = await authority.issue();
			await replacePair(gate, { cert: other.cert, key: pair.key });
			t.match(await gate.daemon.reload(), {
				ok: false,
				file: /gate\.key$/,
				mistakes: [{ message: /is not the certificate's key/ }],
			});
			t.equal(await serialOf(gate, authority), before);
		},
	);

	const breakages: [string, (gate: TestGate) => string][] = [
		["a misspelt configuration", ({ configFile }) => configFile],
		["a damaged certificate", ({ folder }) => path.join(folder, "gate.crt")],
	];
	for (const [what, fileOf] of breakages)
		t.test(
			`${what}: keys that are taken over all the same bring no old certificate back`,
			async (t) => {
				const clock = testClock();
				const gate = await startTlsGate(t, pair, { clock });
				const first = await serialOf(gate, authority);
				await replacePair(gate, await authority.issue());
				await eventually(async () => {
					if (clock.nextMs() !== undefined) clock.next();
					return (await serialOf(gate, authority)) !== first;
				});
				const second = await serialOf(gate, authority);
				await writeFile(fileOf(gate), "{rubbish", { mode: 0o600 });
				const admin = path.join(gate.folder, "admin.sock");
				const { body } = await askDaemon(admin, "POST /reload/keys");
				t.match(JSON.parse(body), { ok: false, keys: Number });
				t.equal(await serialOf(gate, authority), second);
			},
		);

	t.test("a reload turns HTTPS off and on for new connections", async (t) => {
		const gate = await startTlsGate(t, pair);
		const old = await shakeHands(gate, authority);
		await gate.writeConfig({ listen: { tls: "off" } });
		t.equal((await gate.daemon.reload()).ok, true);
		const plain = await fetch(gate.url.replace("https:", "http:"));
		t.equal(plain.status, 401);
		old.write(
			"GET /api/version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		);
		t.match(await readAll(old), /^HTTP\/1\.1 401/);
		await gate.writeConfig({ listen: { tls } });
		t.equal((await gate.daemon.reload()).ok, true);
		t.equal((await ask(gate, authority)).status, 200);
	});

	t.test("probe and connect say that it speaks HTTPS", async (t) => {
		const gate = await startTlsGate(t, pair);
		const plain = gate.url.replace("https:", "http:");
		const probed = await runCli(["probe", plain]);
		t.match(probed.stdout, "probe the https:// address that it names");
		const tried = await runCli(
			["connect", "curl", "--server", plain, "--key-stdin", "--try"],
			testKeys.user,
		);
		t.equal(tried.code, 1);
		t.match(
			tried.stderr,
			/the server speaks HTTPS .*use https:\/\/server\.tail/,
		);
	});

	t.test("bad files keep the gate from starting", async (t) => {
		const ended = await authority.issue({
			from: new Date("2020-01-01"),
			to: new Date("2021-01-01"),
		});
		const gate = await startTlsGate(t, pair);
		const check = () => runCli(["serve", "--config", gate.configFile]);
		await replacePair(gate, ended);
		const { code, stderr } = await check();
		t.equal(code, 78);
		t.match(
			stderr,
			/gate\.crt is not usable:\n {2}line 1: the certificate ended on 2021/,
		);
		await replacePair(gate, pair);
		await writeFile(path.join(gate.folder, "gate.key"), pair.key);
		const { chmod } = await import("node:fs/promises");
		await chmod(path.join(gate.folder, "gate.key"), 0o644);
		t.match(await check(), {
			code: 78,
			stderr:
				/gate\.key.*\n.*others than its owner may read or write it \(mode 0644\); run chmod 600/,
		});
	});
}
