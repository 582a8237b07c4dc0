import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import {
	judgeAnswers,
	judgeHosts,
	judgeLimits,
} from "../../src/host/gate/hosts.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { type Tried, tryOut } from "../../src/upstream/hosts/tryOut.ts";
import { startGate, temporaryFolder, testKeys } from "../support/gate.ts";

/** What comes of asking this one host. */
function tried(entry: object, key?: string): Promise<Tried> {
	const { hosts, upstream } = parseConfig(
		JSON.stringify({ upstreams: [{ name: "a", ...entry }] }),
		"config.json",
	);
	const [host] = hosts ?? [];
	if (host === undefined) throw new Error("no host");
	return tryOut(host, upstream, key);
}

const keyFile = "a.key";

t.test("a host that answers is well", async (t) => {
	const ollama = await startStandIn();
	t.teardown(() => ollama.close());
	t.match(await tried({ url: ollama.url }), {
		models: 3,
		why: undefined,
		isBare: false,
	});
	const gate = await startGate(t);
	const behind = { url: gate.url, keyFile };
	t.match(await tried(behind, testKeys.owner), { models: 3, isBare: false });
});

t.test("a host that is away, or refuses the key, is told of", async (t) => {
	t.match(await tried({ url: "http://127.0.0.1:1" }), { why: "ECONNREFUSED" });
	const gate = await startGate(t, {
		keys: [{ name: "x", sha256: digestOf(testKeys.worker), scopes: ["infer"] }],
	});
	const behind = { url: gate.url, keyFile };
	t.match(await tried(behind, testKeys.wrong), {
		why: "does not take this gate's key (401)",
		isBare: false,
	});
	t.match(await tried(behind, testKeys.worker), {
		why: /refuses this gate's key to read \(403\)/,
	});
});

t.test(
	"an Ollama that needs no key is bare, whatever it is shown",
	async (t) => {
		const ollama = await startStandIn();
		t.teardown(() => ollama.close());
		const behind = { url: ollama.url, keyFile };
		t.match(await tried(behind, testKeys.owner), { isBare: true });
		const socketPath = path.join(await temporaryFolder(t), "bridge.sock");
		const far = await startStandIn({ socketPath });
		t.teardown(() => far.close());
		t.match(
			await tried({ url: `unix:${socketPath}`, keyFile }, testKeys.owner),
			{
				models: undefined,
				why: /bare Ollama/,
				isBare: true,
			},
		);
	},
);

t.test("the worst of the hosts decides", async (t) => {
	const good = {
		name: "a",
		url: "u",
		models: 1,
		why: undefined,
		perMinute: undefined,
		isBare: false,
	};
	const isBad = ({ isBare }: Tried) => isBare;
	const say = ({ name }: Tried) => name;
	t.match(judgeHosts(undefined, isBad, say), { state: "absent" });
	t.match(judgeHosts("it is broken", isBad, say), { state: "unknown" });
	t.match(judgeHosts([good], isBad, say), { state: "ok", evidence: ["a"] });
	t.match(
		judgeHosts([good, { ...good, name: "b", isBare: true }], isBad, say),
		{
			state: "finding",
			evidence: ["b"],
		},
	);
});

t.test("a host that only the running gate calls down is told of", async (t) => {
	const good = (name: string) => ({
		...{ name, url: "u", models: 1 },
		...{ why: undefined, perMinute: undefined, isBare: false },
	});
	const all = [good("a"), good("b")];
	t.match(judgeAnswers(all, new Map()), { state: "ok" });
	t.match(judgeAnswers(all, new Map([["b", "401"]])), {
		state: "finding",
		evidence: [/^b .* the running gate calls it down: 401$/],
		fix: "sudo llamagate reload",
	});
	const away = { ...good("a"), why: "ECONNREFUSED" };
	t.match(judgeAnswers([away], new Map([["a", "ECONNREFUSED"]])), {
		state: "finding",
		evidence: ["a (u) is of no use: ECONNREFUSED"],
		fix: undefined,
	});
});

t.test(
	"what a host's gate lets this gate ask is for all clients",
	async (t) => {
		const limited = (requestsPerMinute: number) => ({
			name: "this-gate",
			sha256: digestOf(testKeys.owner),
			scopes: ["read" as const],
			limits: { requestsPerMinute },
		});
		const gate = await startGate(t, { keys: [limited(500)] });
		const behind = { url: gate.url, keyFile };
		const few = await tried(behind, testKeys.owner);
		t.match(few, { models: 3, perMinute: 500 });
		t.match(judgeLimits([few], 600), {
			state: "finding",
			evidence: [
				/a \(http:.* lets this gate make 500 requests a minute, of which one client of this gate may make 600/,
			],
		});
		t.match(judgeLimits([few], 126), {
			state: "finding",
			fix: /--requests-per-minute 6000 /,
		});
		t.match(
			judgeLimits([{ ...few, perMinute: 6000 }], 1501),
			{ state: "finding", fix: /--requests-per-minute 15010 / },
			"what it advises is enough",
		);
		t.match(judgeLimits([few], 125), { state: "ok" });
		t.match(judgeLimits([{ ...few, perMinute: undefined }], 600), {
			state: "ok",
		});
		await gate.writeKeys([limited(2)]);
		t.match(await gate.daemon.reload(), { ok: true });
		t.match(await tried(behind, testKeys.owner), {
			models: undefined,
			why: "has been asked too often with this gate's key (429)",
		});
	},
);
