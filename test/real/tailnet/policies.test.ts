import { execFile } from "node:child_process";
import { BlockList, isIPv6 } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { parse } from "jsonc-parser";
import t, { type Test } from "tap";
import { becomes, linesOf } from "../../support/namespaces.ts";
import {
	type Device,
	type Owner,
	recordTailnet,
	startTailnet,
	until,
} from "./tailnet.ts";

// What `llamagate policy check` says of a policy, beside what opens under it: each
// device tries each port that check knows of, over IPv4 and IPv6.

const execute = promisify(execFile);
const main = path.join(import.meta.dirname, "../../../src/main.ts");

/** Those that check has a word on. */
const ports = [11434, 443, 22, 3000, 8080];

const owners = {
	laptop: "alice",
	phone: "bob",
	tablet: "carol",
	box: "tag:client",
} as const satisfies Record<string, Owner>;
type Name = keyof typeof owners;
const names = Object.keys(owners) as Name[];

const tags = `"tagOwners": { "tag:gpu": ["alice@"], "tag:client": ["alice@"] }`;

/** Policies of different shape. `$SERVER4` and so on stand for addresses. Two in a row are never the same to the server. */
const policies: Readonly<Record<string, string>> = {
	"an empty list": `{ ${tags}, "acls": [] }`,
	"nothing but tags": `{ ${tags} }`,
	"a group, a host, a port and a range": `{ ${tags},
		"groups": { "group:staff": ["alice@", "bob@"] },
		"hosts": { "server": "$SERVER4" },
		"acls": [{ "action": "accept", "src": ["group:staff"], "dst": ["server:22,3000-8080"] }] }`,
	"all to all": `{ ${tags}, "acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }] }`,
	"members and tagged devices": `{ ${tags}, "acls": [
		{ "action": "accept", "src": ["autogroup:member"], "dst": ["tag:gpu:22,11434"] },
		{ "action": "accept", "src": ["autogroup:tagged"], "dst": ["tag:gpu:3000"] }] }`,
	"grants to users by name and by e-mail, with a blank": `{ ${tags}, "grants": [
		{ "src": ["alice@"], "dst": ["tag:gpu "], "ip": ["tcp:22"] },
		{ "src": ["bob@example.com"], "dst": ["tag:gpu"], "ip": ["443"] },
		{ "src": ["carol@"], "dst": ["tag:gpu"], "ip": ["tcp:3000-3001", "tcp:11434"] }] }`,
	"rules of SSH alone": `{ ${tags}, "ssh": [
		{ "action": "accept", "src": ["alice@"], "dst": ["tag:gpu"], "users": ["root"] }] }`,
	"names of nobody": `{ ${tags}, "grants": [
		{ "src": ["Alice@"], "dst": ["tag:gpu"], "ip": ["tcp:22"] },
		{ "src": ["alice@other.com"], "dst": ["tag:gpu"], "ip": ["3000"] },
		{ "src": ["nobody@"], "dst": ["tag:gpu"], "ip": ["*"] },
		{ "src": ["tag:client"], "dst": ["tag:gpu"], "ip": ["tcp:443"] }] }`,
	"an empty object": "{}",
	"protocols, by name and by number": `{ ${tags}, "acls": [
		{ "action": "accept", "proto": "udp", "src": ["alice@"], "dst": ["tag:gpu:11434"] },
		{ "action": "accept", "proto": "tcp", "src": ["bob@"], "dst": ["tag:gpu:8080"] },
		{ "action": "accept", "proto": "icmp", "src": ["tag:client"], "dst": ["tag:gpu:*"] },
		{ "action": "accept", "proto": "6", "src": ["carol@"], "dst": ["tag:gpu:443"] }] }`,
	"addresses and ranges of both families": `{ ${tags}, "acls": [
		{ "action": "accept", "src": ["$LAPTOP4"], "dst": ["100.64.0.0/10:443"] },
		{ "action": "accept", "src": ["$PHONE6"], "dst": ["fd7a:115c:a1e0::/48:22"] },
		{ "action": "accept", "src": ["$TABLET4/32"], "dst": ["$SERVER4:3000"] },
		{ "action": "accept", "src": ["100.64.0.0/29"], "dst": ["tag:gpu:8080"] }] }`,
	"acls and grants together": `{ ${tags},
		"acls": [{ "action": "accept", "src": ["tag:client"], "dst": ["tag:gpu:11434"] }],
		"grants": [{ "src": ["bob@"], "dst": ["*"], "ip": ["tcp:3000"] }] }`,
	"lists that are empty": `{ ${tags}, "acls": [], "grants": [] }`,
	"one's own devices, and whoever there may be": `{ ${tags}, "acls": [
		{ "action": "accept", "src": ["alice@"], "dst": ["autogroup:self:*"] },
		{ "action": "accept", "src": ["autogroup:danger-all"], "dst": ["tag:gpu:443"] }] }`,
	"the server as a source, and a group of nobody": `{ ${tags}, "groups": { "group:none": [] }, "acls": [
		{ "action": "accept", "src": ["tag:gpu"], "dst": ["tag:gpu:22", "tag:client:*"] },
		{ "action": "accept", "src": ["group:none"], "dst": ["tag:gpu:*"] }] }`,
};

/** The devices that a name in a policy stands for, as headscale has them. */
function devicesOf(
	source: string,
	policy: string,
	devices: Record<Name, Device>,
): readonly Name[] {
	const isTagged = (name: Name) => owners[name].startsWith("tag:");
	if (["*", "autogroup:danger-all"].includes(source)) return names;
	if (source === "autogroup:member")
		return names.filter((name) => !isTagged(name));
	if (source === "autogroup:tagged") return names.filter(isTagged);
	if (source.startsWith("group:")) {
		const { groups } = parse(policy) as { groups: Record<string, string[]> };
		return (groups[source] ?? []).flatMap((member) =>
			devicesOf(member, policy, devices),
		);
	}
	if (source.includes("/")) {
		const [network = "", length] = source.split("/");
		const family = isIPv6(network) ? "ipv6" : "ipv4";
		const range = new BlockList();
		range.addSubnet(network, Number(length), family);
		return names.filter((name) =>
			range.check(devices[name][family === "ipv6" ? "v6" : "v4"], family),
		);
	}
	return names.filter((name) =>
		[
			owners[name],
			...userNames[name],
			devices[name].v4,
			devices[name].v6,
		].includes(source),
	);
}

/** How policies may call who signs in on a device. */
const userNames: Record<Name, readonly string[]> = {
	laptop: ["alice@", "alice@example.com"],
	phone: ["bob@", "bob@example.com"],
	tablet: ["carol@"],
	box: [],
};

type Report = {
	reach: { port: number; who: { source: string; certain: boolean }[] }[];
};

t.test("a policy opens what policy check says, and nothing else", async (t) => {
	const tailnet = await startTailnet(t);
	const [server, ...others] = await Promise.all([
		tailnet.device("server", { owner: "tag:gpu" }),
		...names.map((name) => tailnet.device(name, { owner: owners[name] })),
	]);
	const devices = Object.fromEntries(
		others.map((device) => [device.name, device]),
	) as Record<Name, Device>;
	await linesOf(
		server.network.start(
			...[process.execPath, path.join(import.meta.dirname, "listen.ts")],
			...ports.map(String),
		),
		String,
	).seen((line) => line === "ready");

	/** Which ports each device opens, over whichever family. */
	const dial = async () =>
		Object.fromEntries(
			await Promise.all(
				names.map(async (name) => {
					const { stdout } = await devices[name].network.run(
						...[
							process.execPath,
							path.join(import.meta.dirname, "dial.ts"),
							"1500",
						],
						...[server.v4, server.v6].flatMap((address) =>
							ports.map((port) => `${address} ${port}`),
						),
					);
					const open = (JSON.parse(stdout) as string[]).map((target) =>
						Number(target.split(" ")[1]),
					);
					return [name, ports.filter((port) => open.includes(port))] as const;
				}),
			),
		) as Record<Name, number[]>;

	/** What the server's tailscaled goes by. */
	const filter = async () => {
		const { stdout } = await server.tailscale("debug", "netmap");
		const { PacketFilterRules } = JSON.parse(stdout) as {
			PacketFilterRules: unknown;
		};
		return JSON.stringify(PacketFilterRules);
	};

	const putInForce = async (text: string) => {
		const file = await tailnet.file("policy.hujson", text);
		const before = await filter();
		await tailnet.headscale("policy", "check", "--file", file);
		await tailnet.headscale("policy", "set", "--file", file);
		await until(
			async () => (await filter()) !== before,
			() =>
				`the server has not heard of the policy, or it is as before: ${before}`,
		);
		return file;
	};

	const compare = async (t: Test, text: string) => {
		const file = await putInForce(text);
		const { reach } = await check(file, server);
		const said = Object.fromEntries(
			names.map((name) => [name, [] as number[]]),
		) as Record<Name, number[]>;
		for (const { port, who } of reach)
			for (const { source, certain } of who) {
				t.ok(certain, `who may open ${port} is certain: ${source}`);
				for (const name of devicesOf(source, text, devices))
					if (!said[name].includes(port)) said[name].push(port);
			}
		await becomes(t, dial, said, "what opens is what check says");
	};

	for (const [name, template] of Object.entries(policies))
		await t.test(name, (t) =>
			compare(
				t,
				template.replaceAll(
					/\$([A-Z]+)([46])/g,
					(_, name: string, family: string) => {
						const device = [server, ...others].find(
							(device) => device.name === name.toLowerCase(),
						);
						return (family === "4" ? device?.v4 : device?.v6) ?? "";
					},
				),
			),
		);

	await t.test("what policy print writes for headscale", async (t) => {
		const { stdout } = await llamagate([
			...["policy", "print", "--for", "headscale"],
			...["--server-tag", "tag:gpu", "--client-tag", "tag:client"],
			...["--admin", "alice@", "--ssh"],
		]);
		await compare(t, stdout);
		const unmarked = stdout.replace(/^(\t+)\/\/ (?=\t*["\]{}])/gm, "$1");
		t.not(unmarked, stdout, "its tests are marked");
		const file = await tailnet.file("tested.hujson", unmarked);
		const { tests } = parse(unmarked) as { tests: unknown[] };
		t.equal(tests.length, 2);
		await tailnet.headscale("policy", "check", "--file", file);
	});

	if (t.passing())
		recordTailnet("policies", {
			ran: [
				"what policy check says of 15 policies, beside what opens for each of four devices over IPv4 and IPv6",
				"what policy print --for headscale writes, taken by headscale and beside what opens",
			],
			differs: ["headscale refuses ip sets."],
		});
});

/** Runs a command of llamagate's on this machine. */
function llamagate(args: readonly string[]) {
	return execute(process.execPath, [main, ...args]);
}

async function check(file: string, server: Device): Promise<Report> {
	const { stdout } = await llamagate([
		...["policy", "check", file, "--json", "--server-tag", "tag:gpu"],
		...["--server-address", server.v4, "--server-address", server.v6],
	]).catch((error: { code: number; stdout: string }) => {
		// 1 says that there are findings.
		if (error.code !== 1) throw error;
		return error;
	});
	return JSON.parse(stdout) as Report;
}
