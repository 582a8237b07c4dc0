import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Test } from "tap";
import { parseRuleFile, type RuleList } from "../../src/netfilter/ufwRules.ts";
import { type RunResult, temporaryFolder } from "./gate.ts";
import {
	joinLan,
	joinTailnet,
	makeNamespace,
	type Namespace,
} from "./namespaces.ts";

/** The real UFW in a network of its own, with a configuration of its own: this machine's is not touched. */
export interface Ufw {
	/** Runs a program where /etc/ufw is this firewall's. */
	run(...command: string[]): Promise<RunResult>;
	/** The same; gives back what it printed, and throws if it failed. */
	must(...command: string[]): Promise<string>;
	/** Runs `ufw` with each of the lines. */
	ufw(...lines: string[]): Promise<void>;
	/** The rules that it keeps, in their order. */
	lists(): Promise<RuleList[]>;
	/** What `ufw show added` prints, without `ufw`. */
	added(): Promise<string[]>;
}

/** Profiles of applications, as packages bring them. */
const profiles = {
	openssh: "[OpenSSH]\ntitle=SSH\ndescription=SSH\nports=22/tcp\n",
	web: "[Web Admin]\ntitle=Web\ndescription=Web\nports=80,443/tcp|8080/tcp|3000/udp\n",
	webui: "[WebUI]\ntitle=Open WebUI\ndescription=UI\nports=3000,8080/tcp\n",
};

/** A server with the real UFW between a LAN and a tailnet, of which tailscaled's rules know nothing. */
export interface UfwHost {
	readonly server: Namespace;
	readonly peer: Namespace;
	readonly neighbour: Namespace;
	readonly ufw: Ufw;
}

export async function makeUfwHost(t: Test): Promise<UfwHost> {
	const [server, peer, neighbour] = [
		await makeNamespace(t),
		await makeNamespace(t),
		await makeNamespace(t),
	];
	await joinTailnet(server, peer);
	await joinLan(server, neighbour);
	return { server, peer, neighbour, ufw: await prepareUfw(t, server) };
}

/** Prepares UFW as it is after its installation: off, with no rules. */
export async function prepareUfw(t: Test, namespace: Namespace): Promise<Ufw> {
	const folder = await temporaryFolder(t);
	const [etc, defaults] = ["ufw", "default"].map((name) =>
		path.join(folder, name),
	) as [string, string];
	await cp("/etc/ufw", etc, { recursive: true });
	await mkdir(defaults);
	const settings = await readFile("/etc/default/ufw", "utf8");
	await writeFile(
		path.join(defaults, "ufw"),
		settings
			.replace(/^IPV6=.*$/m, "IPV6=yes")
			.replace(/^DEFAULT_INPUT_POLICY=.*$/m, 'DEFAULT_INPUT_POLICY="DROP"'),
	);
	for (const [file, text] of [
		...["user.rules", "user6.rules"].map((name) => [name, ""] as const),
		["ufw.conf", "ENABLED=no\nLOGLEVEL=off\n"] as const,
		...Object.entries(profiles).map(
			([name, text]) => [`applications.d/${name}`, text] as const,
		),
	])
		await writeFile(path.join(etc, file), text);
	await cp("ufw/llamagate", path.join(etc, "applications.d/llamagate"));

	const server = spawn(
		"ip",
		[
			...["netns", "exec", namespace.name],
			...["unshare", "--mount", "--propagation", "private", "sh", "-euc"],
			`mount --bind "$1" /etc/ufw
			mount --bind "$2" /etc/default
			mount -t tmpfs tmpfs /run
			exec /usr/bin/python3 test/support/ufwServer.py`,
			...["sh", etc, defaults],
		],
		{ stdio: ["pipe", "pipe", "inherit"] },
	);
	const ended = once(server, "close");
	t.teardown(async () => {
		server.kill("SIGKILL");
		await ended;
	});
	const lines = createInterface(server.stdout)[Symbol.asyncIterator]();
	const nextLine = async () => {
		const { value } = (await lines.next()) as { value: string | undefined };
		if (value === undefined) throw new Error("UFW's server has ended");
		return value;
	};
	await nextLine();
	let last: Promise<unknown> = Promise.resolve();
	// One after the other, as UFW's own lock has them.
	const runUfw = (args: readonly string[]): Promise<RunResult> => {
		const answer = last.then(async () => {
			server.stdin.write(`${JSON.stringify(args)}\n`);
			return JSON.parse(await nextLine()) as RunResult;
		});
		last = answer.catch(() => {});
		return answer;
	};
	const inside = ["nsenter", "-t", String(server.pid), "-m"];
	const ufw: Ufw = {
		run: (...command) =>
			command[0] === "ufw"
				? runUfw(command.slice(1))
				: namespace.run(...inside, ...command),
		async must(...command) {
			const { code, stdout, stderr } = await ufw.run(...command);
			if (code !== 0)
				throw new Error(`${command.join(" ")}: ${code}\n${stdout}${stderr}`);
			return stdout;
		},
		async ufw(...lines) {
			for (const line of lines) await ufw.must("ufw", ...wordsOf(line));
		},
		lists: async () => [
			{
				kind: "ipv4",
				rules: parseRuleFile(
					await readFile(path.join(etc, "user.rules"), "utf8"),
				),
			},
			{
				kind: "ipv6",
				rules: parseRuleFile(
					await readFile(path.join(etc, "user6.rules"), "utf8"),
				),
			},
		],
		added: async () =>
			(await ufw.must("ufw", "show", "added"))
				.split("\n")
				.filter((line) => line.startsWith("ufw "))
				.map((line) => line.slice(4)),
	};
	return ufw;
}

/** `allow 'Web Admin'`: what a shell makes of a line. */
function wordsOf(line: string): string[] {
	return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(
		([, quoted, bare]) => quoted ?? bare ?? "",
	);
}
