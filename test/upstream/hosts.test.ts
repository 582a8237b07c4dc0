import t from "tap";
import type { HostSettings } from "../../src/config/upstreams.ts";
import { Hosts, type HostsOwner } from "../../src/upstream/hosts/hosts.ts";

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
