import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import path from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import type { Connection } from "../../src/gate/connection.ts";
import { Handshakes } from "../../src/gate/handshakes.ts";
import { Lockout } from "../../src/gate/lockout.ts";
import { Pacer } from "../../src/gate/pacer.ts";
import { readPair } from "../../src/tls/certificate.ts";
import { makeAuthority } from "../support/certificates.ts";
import {
	eventually,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import { startLocalApi } from "../support/localApi.ts";
import { head, honestAddress, shows, within } from "../support/raw.ts";
import { requireTool } from "../support/tools.ts";

/** The beginning of a handshake that never goes on: a record of 512 bytes, of which five come. */
const beginning = Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);

t.test("handshakes go at an even pace once the burst is used up", async (t) => {
	const pacer = new Pacer(() => ({
		...{ burst: 3, perSecond: 10, longestWaitMs: 250 },
	}));
	const waits = Array.from({ length: 7 }, () => pacer.take("a", 1_000));
	t.same(waits, [0, 0, 0, 100, 200, undefined, undefined]);
	t.equal(pacer.take("b", 1_000), 0, "each by itself");
	t.equal(pacer.take("a", 2_000), 0);
	pacer.exhaust("b", 2_000);
	t.equal(pacer.take("b", 2_200), undefined);
	pacer.sweep(100_000);
	t.equal(pacer.take("b", 100_000), 0);
});

if (requireTool(t, "openssl")) {
	const { ca, issue } = await makeAuthority(t);
	const pair = await issue();

	const startTlsGate = (
		t: Parameters<typeof startGate>[0],
		config: Record<string, unknown> = {},
	) =>
		startGate(t, {
			config: {
				...config,
				listen: { tls: { certFile: "gate.crt", keyFile: "gate.key" } },
			},
			files: { "gate.crt": pair.cert, "gate.key": pair.key },
		});

	function openPlain(
		{ port }: TestGate,
		localAddress = "127.0.0.1",
		bytes?: Buffer | string,
	): { socket: Socket; closed: Promise<unknown>; isClosed(): boolean } {
		const socket = connect({ host: "127.0.0.1", port, localAddress });
		socket.on("error", () => {});
		socket.resume();
		if (bytes !== undefined) socket.write(bytes);
		return {
			socket,
			closed: within(once(socket, "close"), "the connection's end"),
			isClosed: () => socket.destroyed,
		};
	}

	async function shakeHands(
		{ port }: TestGate,
		localAddress = "127.0.0.1",
		more: object = {},
	): Promise<TLSSocket> {
		const over = connect({ host: "127.0.0.1", port, localAddress });
		over.on("error", () => {});
		const socket = connectTls({ socket: over, ca, ...more } as object);
		socket.on("error", () => {});
		await within(
			new Promise((resolve) => {
				socket.once("secureConnect", resolve);
				socket.once("close", resolve);
			}),
			"a handshake",
		);
		return socket;
	}

	/** What an honest client is answered without a key, from an address of its own. */
	async function honestReply(gate: TestGate): Promise<string> {
		const socket = await shakeHands(gate, honestAddress, {
			servername: "server.tail1234.ts.net",
		});
		let reply = "";
		socket.setEncoding("latin1").on("data", (text: string) => {
			reply += text;
		});
		socket.write(
			head("GET /api/tags HTTP/1.1", "Host: gate", "Connection: close"),
		);
		await within(once(socket, "close"), "a reply");
		return reply.slice(0, 12);
	}
	const unauthorized = "HTTP/1.1 401";
	const name = { servername: "server.tail1234.ts.net" };

	async function counts(gate: TestGate): Promise<Record<string, number>> {
		const { body } = await askDaemon(
			path.join(gate.folder, "admin.sock"),
			"GET /metrics",
		);
		return Object.fromEntries(
			[...body.matchAll(/tls_handshakes_total\{result="(\w+)"\} (\d+)/g)].map(
				([, result, count]) => [result, Number(count)],
			),
		);
	}

	t.test(
		"who says nothing, and who stops in the handshake, is closed",
		async (t) => {
			const gate = await startTlsGate(t);
			const peers = [
				openPlain(gate),
				openPlain(gate, "127.0.0.1", beginning),
				openPlain(gate, "127.0.0.1", beginning.subarray(0, 1)),
			];
			t.equal(await honestReply(gate), unauthorized);
			await Promise.all(peers.map(({ closed }) => closed));
			t.match(await counts(gate), { late: 3 });
		},
	);

	t.test("of one address only so many handshakes are under way", async (t) => {
		const gate = await startTlsGate(t);
		const peers = Array.from({ length: 300 }, () =>
			openPlain(gate, "127.0.0.1", beginning),
		);
		await eventually(
			() => peers.filter(({ isClosed }) => isClosed()).length === 300 - 256,
		);
		t.match(await counts(gate), { refused: 300 - 256 });
		t.equal(await honestReply(gate), unauthorized);
		for (const { socket } of peers) socket.destroy();
		await eventually(async () => (await counts(gate)).failed === 256);
		const again = await shakeHands(gate, "127.0.0.1", name);
		t.equal(again.authorized, true, "their places are free again");
		again.destroy();
	});

	t.test(
		"four addresses that fill all places keep nobody else from a handshake",
		async (t) => {
			const gate = await startTlsGate(t);
			const early = openPlain(gate, "127.0.0.7", beginning);
			const running = await shakeHands(gate, "127.0.0.8", name);
			const attackers = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
			const peers = attackers.flatMap((address) =>
				Array.from({ length: 260 }, () => openPlain(gate, address, beginning)),
			);
			await eventually(async () => (await counts(gate)).refused === 17);
			for (let n = 0; n < 3; n += 1)
				t.equal(await honestReply(gate), unauthorized);
			t.match(
				await counts(gate),
				{ refused: 18, done: 4 },
				"one place for all three, of those that have most",
			);
			t.equal(early.isClosed(), false, "who was first and has one place");
			t.equal(running.destroyed, false, "what runs goes on");
			let reply = "";
			running.setEncoding("latin1").on("data", (text: string) => {
				reply += text;
			});
			running.write(head("GET /api/tags HTTP/1.1", "Host: gate"));
			await eventually(() => reply.startsWith(unauthorized));
			for (const { socket } of [...peers, early]) socket.destroy();
			running.destroy();
		},
	);

	t.test("a device has one share for both of its addresses", async (t) => {
		const lockout = new Lockout();
		const [v4, v6] = ["100.64.0.7", "fd7a:115c:a1e0::7"];
		const rule = { max: 3, windowMs: 1_000, lockoutMs: 5_000 };
		lockout.recordFailure(v4, ["a wrong key"], rule, 0);
		lockout.pair([v4, v6], "laptop", rule, 0);
		const handshakes = new Handshakes(
			() => 1_000,
			(address) => lockout.placesOf(address)[0] ?? address,
		);
		const certificate = readPair(
			pair.cert,
			pair.key,
			{ dnsNames: [], addresses: [] },
			Date.now(),
		);
		if ("of" in certificate) throw new Error(certificate.message);
		handshakes.use(certificate);
		const listener = createServer({ allowHalfOpen: true });
		await new Promise<void>((resolve) =>
			listener.listen(0, "127.0.0.1", resolve),
		);
		const { port } = listener.address() as AddressInfo;
		t.teardown(() => listener.close());
		let address = v4;
		listener.on("connection", (socket) => {
			socket.on("error", () => {});
			handshakes.begin({ address } as Connection, socket, {
				encrypted: () => {},
				plain: () => {},
			});
		});
		t.teardown(() => handshakes.closeAll());
		const open = () => {
			const socket = connect({ host: "127.0.0.1", port });
			socket.on("error", () => {});
			socket.write(beginning);
			t.teardown(() => socket.destroy());
		};
		for (let n = 0; n < 255; n += 1) open();
		await eventually(() => handshakes.size === 255);
		address = v6;
		for (let n = 0; n < 2; n += 1) open();
		await eventually(() => handshakes.counts.refused === 1);
		t.equal(handshakes.size, 256);
		address = "fd7a:115c:a1e0::8";
		open();
		await eventually(() => handshakes.size === 257);
	});

	t.test("nobody renegotiates", async (t) => {
		const gate = await startTlsGate(t);
		const socket = await shakeHands(gate, "127.0.0.1", {
			...name,
			maxVersion: "TLSv1.2",
		});
		const error = await within(
			new Promise((resolve) => {
				socket.renegotiate({}, resolve);
				socket.once("close", resolve);
			}),
			"an answer",
		);
		t.ok(error !== null && error !== undefined);
		t.equal(await honestReply(gate), unauthorized);
	});

	/** A record for each, as the next is written once the one before has gone. */
	async function trickle(socket: TLSSocket, count: number): Promise<void> {
		for (let left = count; left > 0 && !socket.destroyed; left--)
			await new Promise((resolve) => socket.write("a", resolve));
	}

	t.test("who sends a byte a record is closed, and has to wait", async (t) => {
		const gate = await startTlsGate(t);
		const socket = await shakeHands(gate, "127.0.0.1", name);
		const closed = new Promise((resolve) =>
			socket.resume().once("close", resolve),
		);
		socket.write("GET /api/tags HTTP/1.1\r\nX: ");
		await trickle(socket, 14_000);
		await within(closed, "the connection's end");
		t.match(await counts(gate), { wasteful: 1 });
		const next = await shakeHands(gate, "127.0.0.1", name);
		t.equal(next.authorized, false);
		t.equal(await honestReply(gate), unauthorized);
	});

	t.test("nor does a key help who sends a body so", async (t) => {
		const gate = await startTlsGate(t);
		const socket = await shakeHands(gate, "127.0.0.1", name);
		let reply = "";
		socket.setEncoding("latin1").on("data", (text: string) => {
			reply += text;
		});
		socket.write(
			head(
				...["POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user)],
				"Content-Length: 1000000",
			),
		);
		await trickle(socket, 10_500);
		await within(
			eventually(() => reply !== ""),
			"a reply",
		);
		t.match(reply, /^HTTP\/1\.1 400 .*too many small chunks/s);
		socket.destroy();
	});

	t.test("bytes that are no TLS, and TLS that is no good", async (t) => {
		const gate = await startTlsGate(t);
		const hello = Buffer.concat([
			Buffer.from([0x16, 0x03, 0x01, 0x00, 0x60, 0x01, 0x00, 0x00, 0x5c]),
			Buffer.from([0x03, 0x03]),
			randomBytes(90),
		]);
		const payloads: (Buffer | string)[] = [
			Buffer.from([0x80, 0x2e, 0x01, 0x00, 0x02]),
			Buffer.from([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28]),
			Buffer.from([0x16, 0xff, 0xff, 0xff, 0xff]),
			Buffer.concat([Buffer.from([0x16]), randomBytes(4_096)]),
			hello,
			Buffer.concat([hello, hello, randomBytes(64)]),
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"CONNECT ollama:11434 HTTP/1.1\r\n\r\n",
			"SSH-2.0-OpenSSH_9.2\r\n",
			randomBytes(100_000),
		];
		for (const bytes of payloads) {
			const { socket, closed } = openPlain(gate, "127.0.0.1", bytes);
			socket.end();
			await closed;
		}
		t.equal(await honestReply(gate), unauthorized);
	});

	t.test("garbage behind a good handshake", async (t) => {
		const gate = await startTlsGate(t);
		for (const bytes of [
			randomBytes(5_000),
			Buffer.from([0x17, 0x03, 0x03, 0xff, 0xff]),
			Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x01, 0x00]),
		]) {
			const over = connect({ host: "127.0.0.1", port: gate.port });
			over.on("error", () => {});
			const socket = connectTls({ socket: over, ca, ...name });
			socket.on("error", () => {});
			await once(socket, "secureConnect");
			over.write(bytes);
			over.end();
			await within(once(over, "close"), "the connection's end");
		}
		t.equal(await honestReply(gate), unauthorized);
	});

	t.test(
		"a client that speaks nothing but HTTP/2 gets no further",
		async (t) => {
			const gate = await startTlsGate(t);
			const socket = connectTls({
				...{ host: "127.0.0.1", port: gate.port, ca, ...name },
				ALPNProtocols: ["h2"],
			});
			const [error] = await once(socket, "error");
			t.match(error.code, /NO_APPLICATION_PROTOCOL/);
			t.equal(await honestReply(gate), unauthorized);
		},
	);

	t.test("without a certificate every connection is closed", async (t) => {
		const api = await startLocalApi(t);
		const gate = await startGate(t, {
			config: {
				listen: { tls: "tailscale" },
				identity: { socket: api.socket },
			},
		});
		await gate.logged(({ event }) => event === "certificate_refused");
		const socket = await shakeHands(gate, "127.0.0.1", name);
		t.equal(socket.authorized, false);
		api.certs.set(name.servername, `${pair.key}${pair.cert}`);
		t.equal((await gate.daemon.reload()).ok, true);
		await gate.logged(({ msg }) => msg === "certificate in force");
		t.equal(await honestReply(gate), unauthorized);
		await api.close();
		t.equal((await gate.daemon.reload()).ok, true);
		t.equal(
			await honestReply(gate),
			unauthorized,
			"it stays without tailscaled",
		);
	});
}
