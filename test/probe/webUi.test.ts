import {
	createServer as createHttpServer,
	type RequestListener,
} from "node:http";
import { createServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { pipeline } from "node:stream/promises";
import { createServer as createTlsServer } from "node:tls";
import t from "tap";
import { tryOut } from "../../src/clients/tryOut.ts";
import { checkGate } from "../../src/probe/gate.ts";
import { checkWebUi, parseWebUi } from "../../src/probe/webUi.ts";
import type { Result } from "../../src/report/result.ts";
import { runCli, type temporaryFolder, testKeys } from "../support/gate.ts";
import { requireTool } from "../support/tools.ts";
import { type Certificate, makeAuthority } from "./authority.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

/** A page over HTTPS on loopback, whose name is localhost. */
async function serve(
	t: Tap,
	certificate: Certificate,
	listener: RequestListener = (_req, res) => res.end("<html></html>"),
): Promise<number> {
	const server = createServer(certificate, listener);
	await new Promise<void>((resolve) =>
		server.listen(0, "127.0.0.1", () => resolve()),
	);
	t.teardown(() => {
		server.close();
		server.closeAllConnections();
	});
	return (server.address() as AddressInfo).port;
}

/** The program as a user runs it, with the authority among those it trusts or not. */
async function look(
	url: string,
	trusted?: string,
): Promise<Record<string, Result> & { code: number | null }> {
	const before = process.env.NODE_EXTRA_CA_CERTS;
	if (trusted !== undefined) process.env.NODE_EXTRA_CA_CERTS = trusted;
	try {
		const { code, stdout } = await runCli(["probe", "--webui", url, "--json"]);
		const { results } = JSON.parse(stdout) as { results: Result[] };
		return {
			...Object.fromEntries(
				results.map((result) => [
					result.id.replace("probe.webui.", ""),
					result,
				]),
			),
			code,
		} as Record<string, Result> & { code: number | null };
	} finally {
		if (before === undefined) delete process.env.NODE_EXTRA_CA_CERTS;
		else process.env.NODE_EXTRA_CA_CERTS = before;
	}
}

t.test("a good certificate and a page that answers pass", async (t) => {
	if (!requireTool(t, "openssl")) return;
	const authority = await makeAuthority(t);
	const port = await serve(t, await authority.sign("localhost", 90));
	const seen = await look(`https://localhost:${port}/auth`, authority.file);
	t.match(seen, {
		certificate: {
			state: "ok",
			evidence: [/^for localhost, from Test authority, until \d{4}-/],
		},
		expiry: { state: "ok", evidence: [/^89 days left/] },
		answers: { state: "ok" },
	});
	// Without the authority nobody would trust it.
	const stranger = await look(`https://localhost:${port}`);
	t.match(stranger.certificate, {
		state: "finding",
		severity: "high",
		evidence: [/does not trust it \(UNABLE_TO_/],
	});
	t.equal(stranger.code, 1);
});

t.test(
	"a certificate that is about to run out, or has, is found",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const authority = await makeAuthority(t);
		const soon = await serve(t, await authority.sign("localhost", 13));
		t.match(await look(`https://localhost:${soon}`, authority.file), {
			certificate: { state: "ok" },
			expiry: {
				state: "finding",
				severity: "warn",
				evidence: [/^12 days left/],
			},
		});
		const past = await serve(t, await authority.sign("localhost", -3));
		t.match(await look(`https://localhost:${past}`, authority.file), {
			certificate: {
				state: "finding",
				evidence: ["it has run out (CERT_HAS_EXPIRED)"],
				fix: /tailscale cert/,
			},
			expiry: { state: "finding", evidence: [/^it ran out on/] },
			answers: { state: "ok" },
		});
	},
);

t.test(
	"a certificate of its own making, or for another name, is found",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const authority = await makeAuthority(t);
		const own = await serve(t, await authority.selfSign("localhost"));
		t.match(await look(`https://localhost:${own}`, authority.file), {
			certificate: { state: "finding", evidence: [/^it has signed itself/] },
			answers: { state: "ok" },
		});
		const other = await serve(t, await authority.sign("box.example", 90));
		t.match(await look(`https://localhost:${other}`, authority.file), {
			certificate: { state: "finding", evidence: [/^it is not for localhost/] },
		});
	},
);

t.test(
	"what does not answer, or answers with an error, is found",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const authority = await makeAuthority(t);
		const certificate = await authority.sign("localhost", 90);
		const broken = await serve(t, certificate, (_req, res) => {
			res.statusCode = 502;
			res.end();
		});
		t.match(await look(`https://localhost:${broken}`, authority.file), {
			answers: { state: "finding", evidence: [/: 502$/] },
		});
		const plain = createTcpServer((socket) => {
			// A connection that is only to see whether the port is open ends in a reset.
			socket.on("error", () => {});
			socket.end("HTTP/1.1 200 OK\r\n\r\n");
		});
		await new Promise<void>((resolve) =>
			plain.listen(0, "127.0.0.1", () => resolve()),
		);
		t.teardown(() => plain.close());
		const { port } = plain.address() as AddressInfo;
		for (const url of [
			`https://localhost:${port}`,
			"https://llamagate-probe.invalid",
		])
			t.match(await look(url, authority.file), {
				certificate: { state: "unknown" },
				expiry: { state: "unknown" },
				answers: { state: "finding" },
			});
	},
);

t.test(
	"what says no HTTP is listened to for a while and no more",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const authority = await makeAuthority(t);
		let sentBytes = 0;
		const allBytes = 2 ** 24;
		const babbler = createTlsServer(await authority.sign("localhost", 90));
		babbler.on("secureConnection", (socket) => {
			socket.on("error", () => {});
			const babble = function* () {
				for (; sentBytes < allBytes; sentBytes += 2 ** 14)
					yield "x".repeat(2 ** 14);
			};
			pipeline(babble, socket).catch(() => {});
		});
		await new Promise<void>((resolve) =>
			babbler.listen(0, "127.0.0.1", () => resolve()),
		);
		t.teardown(() => babbler.close());
		const { port } = babbler.address() as AddressInfo;
		t.match(await look(`https://localhost:${port}`, authority.file), {
			answers: { state: "finding", evidence: [/no HTTP came/] },
		});
		t.ok(sentBytes < allBytes);
	},
);

t.test(
	"a certificate that is not trusted gets no key, whatever the environment says",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const authority = await makeAuthority(t);
		let calls = 0;
		const port = await serve(
			t,
			await authority.selfSign("localhost"),
			(_req, res) => {
				calls += 1;
				res.writeHead(401).end();
			},
		);
		const origin = `https://localhost:${port}`;
		process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
		t.teardown(() => {
			delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
		});
		const { results } = await checkGate(
			{
				...{ origin, key: testKeys.user, model: undefined },
				...{ waitMs: 1_000, lockout: false },
			},
			() => {},
		);
		t.match(results[0], {
			state: "finding",
			evidence: [/DEPTH_ZERO_SELF_SIGNED_CERT/],
		});
		const ignore = () => {};
		t.match(await tryOut(origin, testKeys.user, "m", ignore, ignore), {
			ok: false,
		});
		t.equal(calls, 0);
	},
);

t.test("a raw port beside the HTTPS is found", async (t) => {
	if (!requireTool(t, "openssl")) return;
	const raw = createHttpServer((_req, res) => res.end("<html></html>"));
	const isFree = await new Promise<boolean>((resolve) => {
		raw.once("error", () => resolve(false));
		raw.listen(3000, "127.0.0.1", () => resolve(true));
	});
	if (!isFree) return t.comment("port 3000 of this machine is taken");
	const authority = await makeAuthority(t);
	const port = await serve(t, await authority.sign("localhost", 90));
	const webUi = { host: "localhost", port };
	const of = async () =>
		(await checkWebUi(webUi)).find(({ id }) => id === "probe.webui.raw-ports");
	t.match(await of(), {
		state: "finding",
		severity: "high",
		evidence: ["127.0.0.1:3000 is open"],
	});
	await new Promise((resolve) => raw.close(resolve));
	t.match(await of(), { state: "ok" });
});

t.test("an address of Open WebUI is https and nothing else", async (t) => {
	t.strictSame(parseWebUi("https://box.example.ts.net/auth"), {
		host: "box.example.ts.net",
		port: 443,
	});
	t.strictSame(parseWebUi("box.example.ts.net"), {
		host: "box.example.ts.net",
		port: 443,
	});
	t.strictSame(parseWebUi("https://[::1]:8443"), { host: "::1", port: 8443 });
	for (const text of ["http://box", "https://user@box", "ftp://box", "", " "])
		t.equal(parseWebUi(text), undefined, text);
});
