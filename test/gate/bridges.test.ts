import { writeFile } from "node:fs/promises";
import t from "tap";
import { withBridges } from "../../src/config/bridges.ts";
import { parseConfig } from "../../src/config/load.ts";
import { startBridge } from "../support/bridge.ts";
import { makeAuthority } from "../support/certificates.ts";
import { freePort } from "../support/freePort.ts";
import { startGate } from "../support/gate.ts";
import { sharesWith, stateOf } from "../support/gatePair.ts";
import { hostsOf, isState, send, startWithHosts } from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { requireTool } from "../support/tools.ts";
import { requireValkey, startValkey } from "../support/valkey.ts";

const key = `lg_${"ab".repeat(32)}`;
const minipc = {
	name: "minipc",
	url: "http://minipc.invalid:11434",
	keyFile: "minipc.key",
};
const files = { "minipc.key": key };
const answer = () => ({ body: { model: "qwen3:8b", done: true } });
const portOf = (url: string) => Number(new URL(url).port);

t.test("every address goes by its bridge, and no socket does", async (t) => {
	const settings = parseConfig(
		JSON.stringify({
			upstreams: [
				{ name: "a", url: "http://[fd7a:115c:a1e0::7]:11434", keyFile: "k" },
				{ name: "b", url: "unix:/run/llamagate-ollama/ollama.sock" },
			],
			state: { url: "valkeys://Valkey.example", passwordFile: "p" },
		}),
		"/etc/llamagate/config.json",
	);
	const { hosts, state } = withBridges(settings, "/run/llamagate-bridges");
	t.match(hosts, [
		{
			target: {
				host: "fd7a:115c:a1e0::7",
				bridge: "/run/llamagate-bridges/fd7a:115c:a1e0::7-11434.sock",
			},
		},
		{ target: settings.hosts?.[1]?.target },
	]);
	t.match(state?.target, {
		host: "valkey.example",
		tls: true,
		bridge: "/run/llamagate-bridges/valkey.example-6379.sock",
	});
	t.equal(withBridges(settings, undefined), settings, "with a network");
});

t.test("a host is reached by its bridge, whatever its name is", async (t) => {
	const folder = await temporaryFolder(t);
	const far = await startPlainHost(t, ["qwen3:8b"], answer);
	const bridge = await startBridge(
		t,
		folder,
		"minipc.invalid-11434",
		portOf(far.url),
	);
	const gate = await startWithHosts(t, [minipc], { files, bridges: folder });
	t.equal((await send(gate)).status, 200);
	t.equal(far.prompts.length, 1);
	t.ok(bridge.taken() > 0);
	const [host] = await hostsOf(gate);
	t.equal(host?.url, "http://minipc.invalid:11434", "as it is called");
});

t.test("a bridge that finds nobody is a host that is down", async (t) => {
	const folder = await temporaryFolder(t);
	await startBridge(t, folder, "minipc.invalid-11434", await freePort());
	const gate = await startWithHosts(
		t,
		[minipc],
		{ files, bridges: folder },
		false,
	);
	await isState(gate, "minipc", "down");
	t.match(await hostsOf(gate), [{ why: "its bridge finds nobody there" }]);
});

t.test(
	"without a bridge nothing is dialled, and what to do is said",
	async (t) => {
		const folder = await temporaryFolder(t);
		const far = await startPlainHost(t, ["qwen3:8b"], answer);
		const gate = await startWithHosts(
			t,
			[{ name: "near", url: far.url }],
			{ bridges: folder },
			false,
		);
		await isState(gate, "near", "down");
		t.match(await hostsOf(gate), [
			{
				why: /no bridge leads there; run: sudo llamagate setup --only bridges/,
			},
		]);
		await startBridge(
			t,
			folder,
			`127.0.0.1-${portOf(far.url)}`,
			portOf(far.url),
		);
		await isState(gate, "near", "up");
		t.equal((await send(gate)).status, 200, "once there is one");
	},
);

t.test("a name that no socket can have leads nowhere", async (t) => {
	const host = `${"a".repeat(60)}.${"b".repeat(60)}.example`;
	const gate = await startWithHosts(
		t,
		[{ ...minipc, url: `http://${host}:11434` }],
		{
			files: { ...files, "valkey.password": key },
			bridges: await temporaryFolder(t),
			config: {
				state: { url: `valkeys://${host}`, passwordFile: "valkey.password" },
			},
		},
		false,
	);
	await isState(gate, "minipc", "down");
	t.match(await hostsOf(gate), [{ why: /no bridge leads there/ }]);
	const { why } = await gate.logged(({ event }) => event === "state_away");
	t.equal(why, "ENOENT");
});

t.test(
	"a Valkey behind a bridge must have the certificate of the one that is named",
	async (t) => {
		if (!requireValkey(t) || !requireTool(t, "openssl")) return;
		const folder = await temporaryFolder(t);
		const { ca, issue } = await makeAuthority(t);
		const pair = await issue({ names: ["valkey.example", "100.101.102.103"] });
		const port = await freePort();
		const certificate = await temporaryFolder(t);
		await writeFile(`${certificate}/cert.pem`, pair.cert);
		await writeFile(`${certificate}/key.pem`, pair.key);
		await startValkey(t, {
			auth: [key],
			args: [
				...["--requirepass", key],
				...["--tls-port", String(port), "--tls-auth-clients", "no"],
				...["--tls-cert-file", `${certificate}/cert.pem`],
				...["--tls-key-file", `${certificate}/key.pem`],
				...["--tls-ca-cert-file", `${certificate}/cert.pem`],
			],
		});
		const password = { passwordFile: "valkey.password" };
		const start = async (host: string) => {
			await startBridge(t, folder, `${host}-6379`, port);
			return startGate(t, {
				files: { "ca.pem": ca, "valkey.password": key },
				bridges: folder,
				config: {
					state: { url: `valkeys://${host}`, caFile: "ca.pem", ...password },
				},
			});
		};
		await sharesWith(await start("valkey.example"), 1);
		await sharesWith(await start("100.101.102.103"), 2);
		for (const host of ["other.example", "100.101.102.104"]) {
			const gate = await start(host);
			const { why } = await gate.logged(({ event }) => event === "state_away");
			t.match(why, /ERR_TLS_CERT_ALTNAME_INVALID/, host);
			t.notOk((await stateOf(gate)).isConnected);
		}
	},
);
