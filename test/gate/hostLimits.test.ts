import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { eventually, startGate } from "../support/gate.ts";
import { hostsOf, send, startWithHosts } from "../support/hosts.ts";

const key = `lg_${"ab".repeat(32)}`;

t.test(
	"a host whose gate was asked too often is there, and has what it had",
	async (t) => {
		const far = await startGate(t, {
			keys: [
				{
					name: "this-gate",
					sha256: digestOf(key),
					scopes: ["read", "infer"],
					limits: { requestsPerMinute: 40 },
				},
			],
		});
		const gate = await startWithHosts(
			t,
			[{ name: "far", url: far.url, keyFile: "k" }],
			{ files: { k: `${key}\n` } },
		);
		const list = async () =>
			(await send(gate, { path: "/api/tags", method: "GET" })).text();
		const listed = await list();
		t.match(listed, "qwen3:8b");
		const states: (string | undefined)[] = [];
		await eventually(async () => {
			const version = { path: "/api/version", method: "GET" };
			return (await send(gate, version)).status === 429;
		});
		t.equal(await list(), listed);
		const refused = () => far.log.filter(({ status }) => status === 429);
		const before = refused().length;
		await eventually(() => refused().length > before);
		await eventually(async () => {
			const [host] = await hostsOf(gate);
			states.push(host?.state);
			return states.length === 10;
		});
		t.strictSame([...new Set(states)], ["up"]);
	},
);
