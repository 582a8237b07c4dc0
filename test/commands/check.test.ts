import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import path from "node:path";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import {
	runCli,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { startLocalApi } from "../support/localApi.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

async function prepare(
	t: Tap,
	config: Record<string, unknown>,
	keys: readonly object[] = [{ name: "a", sha256: digestOf(testKeys.user) }],
	mode = 0o600,
) {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "config.json");
	await writeFile(file, JSON.stringify(config));
	await writeFile(path.join(folder, "keys.json"), JSON.stringify({ keys }), {
		mode,
	});
	return (...args: string[]) => runCli(["check", "--config", file, ...args]);
}

const loopback = {
	listen: { address: "127.0.0.1", port: 0 },
	sources: ["127.0.0.0/8"],
};

t.test(
	"a gate that would start, in front of an Ollama that answers, is exit 0",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const check = await prepare(t, {
			...loopback,
			upstream: { url: standIn.url },
		});
		const { code, stdout } = await check();
		t.equal(code, 0, stdout);
		t.match(stdout, /^ok {4}configuration: /);
		t.match(stdout, /ok {4}keys: 1 in .*: a/);
		t.match(
			stdout,
			/ok {4}upstream: Ollama 0\.35\.0 answers at http:\/\/127\.0\.0\.1:/,
		);
		t.match(JSON.parse((await check("--json")).stdout), {
			ok: true,
			lines: [{ subject: "configuration", ok: true }],
		});
	},
);

t.test("of several hosts check says how each is", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const check = await prepare(t, {
		...loopback,
		upstreams: [
			{ name: "own", url: standIn.url },
			{ name: "away", url: "http://127.0.0.1:1", kind: "openai" },
		],
	});
	const { code, stdout } = await check();
	t.equal(code, 1);
	t.match(
		stdout,
		/ok {4}upstream: own answers at http:.*, and has 3 model\(s\)/,
	);
	t.match(
		stdout,
		/look {2}upstream: away at http:\/\/127\.0\.0\.1:1 is of no use: ECONNREFUSED; nothing listens there/,
	);
});

t.test(
	"an Ollama that does not answer is exit 1, and says where it was looked for",
	async (t) => {
		const check = await prepare(t, {
			...loopback,
			upstream: { url: "http://127.0.0.1:1" },
		});
		const { code, stdout } = await check();
		t.equal(code, 1);
		t.match(
			stdout,
			/look {2}upstream: Ollama does not answer at http:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\)/,
		);
	},
);

t.test(
	"what would keep people out or let digests be read is exit 1",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const upstream = { url: standIn.url };
		const noInterface = await (
			await prepare(t, { listen: { interface: "nosuchif0" }, upstream })
		)();
		t.equal(noInterface.code, 1);
		t.match(noInterface.stdout, /nosuchif0 has no Tailscale address now/);
		const noSource = await (
			await prepare(t, { listen: loopback.listen, upstream })
		)();
		t.equal(noSource.code, 1);
		t.match(noSource.stdout, /every client would be refused/);
		const noKeys = await (await prepare(t, { ...loopback, upstream }, []))();
		t.equal(noKeys.code, 1);
		t.match(noKeys.stdout, /has no key/);
		const expired = await (
			await prepare(t, { ...loopback, upstream }, [
				{ name: "old", sha256: digestOf("a"), expires: "2001-01-01T00:00:00Z" },
			])
		)();
		t.equal(expired.code, 1);
		t.match(expired.stdout, /expired: old/);
		const readable = await (
			await prepare(t, { ...loopback, upstream }, undefined, 0o644)
		)();
		t.equal(readable.code, 1);
		t.match(readable.stdout, /mode 0644/);
		const everybody = await (
			await prepare(t, { ...loopback, sources: ["0.0.0.0/0"], upstream })
		)();
		t.equal(everybody.code, 1);
		t.match(everybody.stdout, /contains every address/);
	},
);

t.test(
	"an Ollama that listens where the gate should is found out",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const check = await prepare(t, {
			...loopback,
			listen: { address: "127.0.0.1", port: standIn.port },
			upstream: { url: "http://127.0.0.1:1" },
		});
		const { code, stdout } = await check();
		t.equal(code, 1);
		t.match(
			stdout,
			/listening: Ollama itself answers on 127\.0\.0\.1:\d+, without a key; set OLLAMA_HOST/,
		);
	},
);

t.test(
	"a gate that runs already is no finding, another program is",
	async (t) => {
		const gate = await startGate(t);
		const check = await prepare(t, {
			...loopback,
			listen: { address: "127.0.0.1", port: gate.port },
			upstream: { url: gate.standIn.url },
		});
		const { code, stdout } = await check();
		t.equal(code, 0, stdout);
		t.match(stdout, /a gate runs on 127\.0\.0\.1:\d+ already/);
		const other = createServer((socket) => socket.destroy()).listen(
			0,
			"127.0.0.1",
		);
		await once(other, "listening");
		t.teardown(() => other.close());
		const { port } = other.address() as { port: number };
		const taken = await (
			await prepare(t, {
				...loopback,
				listen: { address: "127.0.0.1", port },
				upstream: { url: gate.standIn.url },
			})
		)();
		t.equal(taken.code, 1);
		t.match(taken.stdout, /is taken by another program/);
	},
);

t.test(
	"with identity, a tailscaled that cannot be asked is exit 1",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const api = await startLocalApi(t);
		const config = (socket: string) => ({
			...loopback,
			upstream: { url: standIn.url },
			identity: { mode: "require", socket },
		});
		const missing = await (await prepare(t, config("/no/such/socket")))();
		t.equal(missing.code, 1);
		t.match(
			missing.stdout,
			/identity: tailscaled cannot be asked at \/no\/such\/socket: .*everybody would be refused/,
		);
		const there = await (await prepare(t, config(api.socket)))();
		t.equal(there.code, 0, there.stdout);
		t.match(
			there.stdout,
			/identity: tailscaled answers at .* in state Running/,
		);
	},
);

t.test(
	"what answers at the upstream and is no Ollama is told of",
	async (t) => {
		for (const body of ["null", "{}", "<html>", '{"version":1}']) {
			const upstream = createHttpServer((_, res) => res.end(body));
			await once(upstream.listen(0, "127.0.0.1"), "listening");
			t.teardown(() => upstream.close());
			const { port } = upstream.address() as AddressInfo;
			const check = await prepare(t, {
				...loopback,
				upstream: { url: `http://127.0.0.1:${port}` },
			});
			t.match(
				(await check()).stdout,
				/upstream: something at .* answers, but not/,
			);
		}
	},
);

t.test("what answers at the upstream does not steer a terminal", async (t) => {
	const version =
		"0.1\u001b]0;odd\u0007\u001b[2J\u009b31m\u202e\nok    all: is well";
	const upstream = createHttpServer((_, res) =>
		res.end(JSON.stringify({ version })),
	).listen(0, "127.0.0.1");
	await once(upstream, "listening");
	t.teardown(() => upstream.close());
	const { port } = upstream.address() as AddressInfo;
	const check = await prepare(t, {
		...loopback,
		upstream: { url: `http://127.0.0.1:${port}` },
	});
	const { stdout } = await check();
	t.match(stdout, /^ok {4}upstream: Ollama 0\.1<U\+001B>]0;odd<U\+0007>/m);
	t.notMatch(stdout, /^ok {4}all: /m);
	const json = await check("--json");
	t.match(JSON.parse(json.stdout), {
		lines: [{}, {}, {}, { says: `Ollama ${version} answers at ` }],
	});
	for (const text of [stdout, json.stdout])
		for (const odd of ["\u001b", "\u0007", "\u009b", "\u202e"])
			t.notMatch(text, odd);
});
