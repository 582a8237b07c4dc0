import type { Socket } from "node:net";
import t from "tap";
import type { HostSettings } from "../../src/config/upstreams.ts";
import { Host } from "../../src/upstream/hosts/host.ts";
import { Hosts, type HostsOwner } from "../../src/upstream/hosts/hosts.ts";
import { lookAt } from "../../src/upstream/hosts/look.ts";
import { eventually } from "../support/gate.ts";
import { startPlainHost } from "../support/plainHost.ts";
import { startRawServer } from "../support/rawServer.ts";

const limits = {
	target: { kind: "tcp", host: "127.0.0.1", port: 9 } as const,
	connectTimeoutMs: 1_000,
	firstByteTimeoutMs: 1_000,
	idleTimeoutMs: 1_000,
	maxConnections: 1,
};
const entry: HostSettings = {
	name: "a",
	kind: "ollama",
	// Nothing answers there.
	target: { kind: "tcp", host: "127.0.0.1", port: 9 },
	models: undefined,
	keyFile: undefined,
	weight: 1,
	line: undefined,
};

t.test("a host that a reload has kept tells its new owner", async (t) => {
	const told: string[] = [];
	const owner = (name: string): HostsOwner => ({
		changed: () => void told.push(name),
		isHeard: () => false,
	});
	const first = new Hosts([entry], limits, new Map(), owner("former"));
	const next = new Hosts([entry], limits, new Map(), owner("new"), first);
	t.teardown(() => next.destroy());
	const [host] = next.all;
	t.equal(host, first.all[0]);
	host?.note({ kind: "nonsense", why: "no version" });
	t.strictSame(told, ["new"]);
});

t.test(
	"what a host says to a key that a reload has replaced does not count",
	async (t) => {
		const asked: { readonly socket: Socket; readonly head: string }[] = [];
		const { port } = await startRawServer(t, (socket) => {
			socket.on("data", (piece) => {
				asked.push({ socket, head: piece.toString("latin1") });
			});
		});
		const owner: HostsOwner = { changed: () => {}, isHeard: () => false };
		const own: HostSettings = {
			...entry,
			target: { kind: "tcp", host: "127.0.0.1", port },
			keyFile: "/k",
		};
		const keyed = (key: string) => new Map([["a", key]]);
		const first = new Hosts([own], limits, keyed("former"), owner);
		await eventually(() => asked.length === 1);
		const next = new Hosts([own], limits, keyed("new"), owner, first);
		t.teardown(() => next.destroy());
		t.equal(next.all[0], first.all[0]);
		asked[0]?.socket.write("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n");
		await eventually(() => asked.length === 2);
		t.match(asked[1]?.head, /bearer new/i);
		t.equal(next.all[0]?.health.state, "suspect");
	},
);

t.test(
	"what a host has is asked for once more where nobody is known to have a model",
	async (t) => {
		const models = ["one:1b"];
		let atEachQuestion = () => {};
		const { url } = await startPlainHost(
			t,
			models,
			() => ({ body: {} }),
			() => void atEachQuestion(),
		);
		const owner: HostsOwner = { changed: () => {}, isHeard: () => false };
		const port = Number(new URL(url).port);
		const local: HostSettings = {
			...entry,
			target: { kind: "tcp", host: "127.0.0.1", port },
		};
		const hosts = new Hosts([local], limits, new Map(), owner);
		t.teardown(() => hosts.destroy());
		const has = (model: string) => hosts.all[0]?.hasModel(model);
		await hosts.news(hosts.all);
		t.equal(has("one:1b"), true, "the first answer is waited for");
		models.push("two:1b");
		t.equal(hosts.news(hosts.all), undefined, "it has just said so");
		const { now } = performance;
		let laterMs = 0;
		t.intercept(performance, "now", {
			value: () => now.call(performance) + laterMs,
		});
		laterMs = 3_000;
		await hosts.news(hosts.all);
		t.equal(has("two:1b"), true);
		laterMs += 3_000;
		let asked = 0;
		atEachQuestion = () => {
			asked += 1;
			// The list has been told by then.
			if (asked !== 3) return;
			models.push("three:1b");
			for (const host of hosts.all) hosts.look(host, true);
		};
		await hosts.news(hosts.all);
		t.equal(has("three:1b"), true);
	},
);

t.test(
	"a gate that has counted too many requests has answered, and one that has locked this gate out has not",
	async (t) => {
		let counts = "";
		const { port } = await startRawServer(t, (socket) => {
			socket.on("data", () => {
				socket.write(
					`HTTP/1.1 429 No\r\n${counts}x-request-id: 1\r\ncontent-length: 0\r\n\r\n`,
				);
			});
		});
		const host = new Host(
			{ ...entry, target: { kind: "tcp", host: "127.0.0.1", port } },
			limits,
			"key",
			() => {},
		);
		t.teardown(() => host.asking.destroy());
		t.match(await lookAt(host, true), { kind: "silent" });
		counts = "ratelimit-limit: 600\r\n";
		t.match(await lookAt(host, true), { kind: "answered" });
		t.equal(host.hasShownItself, false, "nor has it said what it is");
	},
);

t.test(
	"a list that has failed is asked for again, and no more often than one that has not",
	async (t) => {
		let lists = 0;
		const { port } = await startRawServer(t, (socket) => {
			socket.on("data", (piece) => {
				const isList = piece.includes("GET /api/tags ");
				if (isList) lists += 1;
				const body = piece.includes("GET /api/version ")
					? '{"version":"0.34.0"}'
					: '{"models":[]}';
				socket.write(
					isList && lists > 1
						? "HTTP/1.1 429 No\r\nratelimit-limit: 600\r\ncontent-length: 0\r\n\r\n"
						: `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
				);
			});
		});
		const owner: HostsOwner = { changed: () => {}, isHeard: () => false };
		const target = { kind: "tcp", host: "127.0.0.1", port } as const;
		const hosts = new Hosts([{ ...entry, target }], limits, new Map(), owner);
		t.teardown(() => hosts.destroy());
		const [host] = hosts.all;
		if (host === undefined) return;
		await hosts.news(hosts.all);
		const { now } = performance;
		let laterMs = 3_000;
		t.intercept(performance, "now", {
			value: () => now.call(performance) + laterMs,
		});
		for (const asked of [2, 3]) {
			await hosts.news(hosts.all);
			t.equal(host.health.state, "up");
			t.equal(hosts.news(hosts.all), undefined, "it was asked just now");
			t.equal(lists, asked);
			laterMs += 3_000;
		}
		hosts.look(host);
		await eventually(() => lists >= 4);
		await hosts.news(hosts.all);
		hosts.look(host, true);
		await hosts.news(hosts.all);
		t.equal(lists, 5, "unless it may have other models now");
	},
);
