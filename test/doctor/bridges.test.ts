import { chmod, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import {
	type BridgeLook,
	judgeBridges,
} from "../../src/host/bridges/checks.ts";
import {
	changeableByOthers,
	dropInOf,
	findAddress,
	hasOwnNetwork,
	madeBridgeNames,
	type Resolve,
	type WantedBridge,
	wantedBridges,
} from "../../src/host/bridges/inspect.ts";
import { bridges } from "../../src/host/bridges/step.ts";
import { findInstallation } from "../../src/system/installation.ts";
import { parseProperties } from "../../src/system/units.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const wanted: WantedBridge = {
	name: "minipc-11434",
	host: "minipc",
	port: 11434,
	whose: "minipc (http://minipc:11434)",
	isEncrypted: false,
};
const address = "100.101.102.103";
const good: BridgeLook = {
	wanted,
	found: { kind: "address", address },
	trouble: undefined,
	made: {
		name: wanted.name,
		dropIn: dropInOf(wanted, address),
		isEnabled: true,
		isActive: true,
		address: `${address}:11434`,
		foreignDropIns: [],
		service: parseProperties(
			`ActiveState=inactive\nIPAddressAllow=${address}/32\nIPAddressDeny=::/0 0.0.0.0/0\n`,
		),
	},
};

t.test("each address takes one bridge, and sockets take none", async (t) => {
	const settings = (config: object) =>
		parseConfig(JSON.stringify(config), "/etc/llamagate/config.json");
	t.strictSame(
		wantedBridges(
			settings({
				upstreams: [
					{ name: "here", url: "unix:/run/llamagate-ollama/ollama.sock" },
					{ name: "minipc", url: "http://minipc:11434", keyFile: "k" },
					{ name: "vllm", url: "http://127.0.0.1:8000", kind: "openai" },
				],
				state: { url: "valkeys://valkey.example", passwordFile: "p" },
			}),
		).map(({ name, isEncrypted }) => [name, isEncrypted]),
		[
			["minipc-11434", false],
			["127.0.0.1-8000", false],
			["valkey.example-6379", true],
		],
	);
	t.match(wantedBridges(settings({})), [{ name: "127.0.0.1-11434" }]);
});

t.test("a bridge leads into the tailnet, or where TLS holds", async (t) => {
	const leads =
		(...found: string[]): Resolve =>
		async () =>
			found;
	const find = (resolve: Resolve, more: Partial<WantedBridge> = {}) =>
		findAddress({ ...wanted, ...more }, resolve);
	t.strictSame(await find(leads("fd7a:115c:a1e0::7", address)), {
		kind: "address",
		address,
	});
	for (const elsewhere of ["192.168.1.9", "127.0.0.1", "2001:db8::1"])
		t.match(
			await find(leads(address, elsewhere)),
			{
				kind: "refused",
				why: /use that host's name or address in the tailnet/,
			},
			elsewhere,
		);
	t.match(await find(leads("192.0.2.1"), { isEncrypted: true }), {
		kind: "address",
		address: "192.0.2.1",
	});
	t.match(await find(leads(), { host: "127.0.0.1" }), {
		kind: "address",
		address: "127.0.0.1",
	});
	t.match(
		await find(async () => {
			throw Object.assign(new Error(), { code: "ENOTFOUND" });
		}),
		{ kind: "not found", why: /minipc is not found \(ENOTFOUND\)/ },
	);
	t.match(await find(leads()), { kind: "not found", why: /no address/ });
	for (const odd of ["fe80::1%eth0", "100.101.102.103%h"])
		t.match(
			await find(leads(odd), { isEncrypted: true }),
			{ kind: "refused", why: /an address that no bridge can lead to/ },
			`a unit of root's has no room for ${odd}`,
		);
	for (const name of ["mini~pc-11434", `${"a".repeat(80)}-1`])
		t.match(await find(leads(address), { name }), {
			kind: "refused",
			why: /write that host's address/,
		});
});

t.test(
	"root makes no bridge, and gives no file away, at the word of others",
	async (t) => {
		const folder = await temporaryFolder(t);
		const configFile = path.join(folder, "config.json");
		const keyFile = path.join(folder, "minipc.key");
		const upstreams = [
			{ name: "minipc", url: `http://${address}:11434`, keyFile: "minipc.key" },
		];
		await writeFile(configFile, JSON.stringify({ upstreams }), { mode: 0o640 });
		await writeFile(keyFile, "a key", { mode: 0o644 });
		const installation = {
			...(await findInstallation()),
			...{ folder, configFile },
		};
		for (const [file, mode] of [
			[folder, 0o777],
			[configFile, 0o666],
		] as const) {
			await chmod(folder, 0o750);
			await chmod(file, mode);
			const { state, says, actions } = await bridges(installation).inspect();
			t.equal(state, "unsafe");
			t.match(says, `${file}`);
			t.match(says, /others than root may change .* setup --only account/);
			t.strictSame(actions, []);
		}
		t.strictSame(await changeableByOthers("/usr", "/etc/passwd"), []);
	},
);

t.test("what is left of a bridge once setup has taken it away", async (t) => {
	const folder = await temporaryFolder(t);
	const unit = (text: string) => path.join(folder, `llamagate-bridge@${text}`);
	const wants = path.join(folder, "sockets.target.wants");
	await mkdir(wants);
	await mkdir(unit("minipc-11434.service.d"));
	await writeFile(unit("minipc-11434.service.d/llamagate.conf"), "");
	await mkdir(unit("gone-11434.service.d"));
	await writeFile(unit("gone-11434.service.d/override.conf"), "");
	await mkdir(unit("old-11434.socket.d"));
	await writeFile(path.join(wants, "llamagate-bridge@vllm-80.socket"), "");
	t.strictSame(
		await madeBridgeNames(folder),
		["minipc-11434", "vllm-80"],
		"a drop-in of somebody's for its units, which stays, is no bridge",
	);
});

t.test("a gate's unit of one's own, with a network, takes none", async (t) => {
	const has = (network: string, environment: string, load = "loaded") =>
		hasOwnNetwork(
			parseProperties(
				`LoadState=${load}\nPrivateNetwork=${network}\nEnvironment=${environment}\n`,
			),
		);
	const told = "A=b LLAMAGATE_BRIDGES=/run/llamagate-bridges";
	t.equal(has("no", "A=b"), true);
	t.equal(has("no", told), false, "it dials bridges alone");
	t.equal(has("yes", ""), false, "that of an older version");
	t.equal(has("no", "", "not-found"), false, "setup will write it");
	t.equal(hasOwnNetwork(undefined), false);
});

t.test("doctor judges bridges by what is in force", async (t) => {
	t.match(judgeBridges([good], [], true), { state: "ok" });
	t.match(judgeBridges([good], [], undefined), { state: "ok" });
	const judged = (look: Partial<BridgeLook>, made: object = {}) =>
		judgeBridges(
			[
				{
					...good,
					...look,
					...(good.made && { made: { ...good.made, ...made } }),
				},
			],
			[],
			true,
		);
	t.match(judged({ trouble: "others may open it" }), {
		state: "finding",
		evidence: ["minipc (http://minipc:11434): others may open it"],
	});
	t.match(judged({}, { isActive: false }).evidence, [/does not run$/]);
	t.match(judged({}, { isEnabled: false }).evidence, [/not start at boot$/]);
	t.match(judged({}, { dropIn: undefined }).evidence, [
		/no bridge leads to it yet/,
	]);
	t.match(judged({}, { address: "" }).evidence, [/leads to no address, and/]);
	t.match(judged({ found: { kind: "refused", why: "outside" } }).evidence, [
		/outside/,
	]);
	t.match(
		judged({ found: { kind: "not found", why: "no name" } }),
		{ state: "ok" },
		"a name that nobody tells now says nothing of the bridge",
	);
	const service = (text: string) => ({ service: parseProperties(text) });
	t.match(judged({}, service("IPAddressAllow=100.64.0.0/10\n")).evidence, [
		/may reach 100\.64\.0\.0\/10, and is to reach 100\.101\.102\.103 alone/,
	]);
	t.match(judged({}, service("IPAddressDeny=\n")).evidence, [
		/may reach any address/,
	]);
	t.match(judged({}, service("ActiveState=failed\n")).evidence, [/has failed/]);
	t.match(judged({}, { foreignDropIns: ["/etc/zz.conf"] }), {
		state: "finding",
		fix: "sudo rm /etc/zz.conf && sudo systemctl daemon-reload && sudo llamagate setup --only bridges",
	});
	t.match(judgeBridges([good], ["old-11434"], true), {
		state: "finding",
		severity: "warn",
		evidence: [/^llamagate-bridge@old-11434\.socket leads to a place/],
	});
	t.match(judgeBridges([good], [], false), {
		state: "finding",
		fix: /systemctl restart llamagate$/,
	});
});
