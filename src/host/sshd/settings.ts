import { glob, readFile, stat } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import path from "node:path";
import ipaddr from "ipaddr.js";
import { oncePerLook } from "../../doctor/check.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
	parseAddress,
	parseRange,
} from "../../net/ranges.ts";
import { outputOf } from "../../system/run.ts";
import { listeningSockets } from "../../system/sockets.ts";
import { askSshd, sshPorts, sshSockets } from "./inspect.ts";
import { parseSettings, whySilent } from "./step.ts";

export const mainFile = "/etc/ssh/sshd_config";

/** sshd's settings for one person who comes from one place. */
export interface SettingsFor {
	readonly user: string;
	/** Where from, for people: `203.0.113.77 (the internet)`. */
	readonly from: string;
	/** As `sshd -T` has them, lower-case names. */
	readonly settings: ReadonlyMap<string, string>;
}

/** An answer takes some hundredths of a second, and a check has 45 s. */
const mostAsked = 1_000;

/** For everybody who could log in, by every way that Match blocks could tell apart. @throws if sshd does not say */
export const everySetting = oncePerLook(async () => {
	const { stdout, stderr, code } = await askSshd({ user: "root" });
	if (code !== 0) throw new Error(whySilent(stderr));
	const { files } = await configFiles();
	const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
	const matched = readMatches(texts.join("\n"));
	const users = await accounts();
	const ways = waysTo(
		placesFor(matched.addresses),
		await entrances(matched.isByEntrance),
	);
	// Where nothing is told apart by who comes, one answers for all.
	const asked = matched.isThere ? users : users.slice(0, 1);
	const questions = asked.flatMap((user) => ways.map((way) => ({ user, way })));
	if (questions.length > mostAsked)
		throw new Error(
			`with these Match blocks sshd would have to be asked ${questions.length} times, for ${asked.length} accounts and ${ways.length} kinds of connection; that takes too long`,
		);
	const usesDns = parseSettings(stdout).get("usedns") === "yes";
	const all: SettingsFor[] = [];
	for (let at = 0; at < questions.length; at += 8)
		all.push(
			...(await Promise.all(
				questions
					.slice(at, at + 8)
					.map(({ user, way }) => ask(user, way, usesDns)),
			)),
		);
	return matched.isThere
		? all
		: users.flatMap((user) => all.map((one) => ({ ...one, user })));
});

async function ask(
	user: string,
	{ addr, laddr, lport, from }: Way,
	usesDns: boolean,
): Promise<SettingsFor> {
	// Without DNS the address is all the name there is.
	const host = usesDns ? "elsewhere.example" : addr;
	const { code, stdout } = await askSshd({ user, host, addr, laddr, lport });
	if (code !== 0)
		throw new Error(`sshd -T does not say what holds for ${user}`);
	return { user, from, settings: parseSettings(stdout) };
}

/** Those who could log in: to a shell, or by a password without one, since sshd forwards ports for them all the same. */
async function accounts(): Promise<string[]> {
	const passwd = await outputOf("getent", "passwd");
	const shadow = await outputOf("getent", "shadow");
	if (passwd === undefined || shadow === undefined)
		throw new Error("getent does not say which accounts there are");
	return [
		...new Set([...loginUsers(passwd), ...passwordUsers(passwd, shadow)]),
	];
}

/** Names from `getent passwd` of those who have a shell to log in to. */
export function loginUsers(passwd: string): string[] {
	return passwd.split("\n").flatMap((line) => {
		const [name = "", , , , , , shell] = line.split(":");
		if (name === "" || shell === undefined) return [];
		const program = path.basename(shell);
		return ["nologin", "false", "sync", "halt", "shutdown"].includes(program)
			? []
			: [name];
	});
}

/** Names from `getent passwd` of those with a password that is not locked, an empty one too, by it or by `getent shadow`. */
export function passwordUsers(passwd: string, shadow: string): string[] {
	const hashes = new Map(
		shadow.split("\n").map((line) => {
			const [name = "", hash] = line.split(":");
			return [name, hash] as const;
		}),
	);
	return passwd.split("\n").flatMap((line) => {
		const [name = "", own] = line.split(":");
		const hash = own === "x" ? hashes.get(name) : own;
		return name === "" || hash === undefined || /^[!*]/.test(hash)
			? []
			: [name];
	});
}

interface Place {
	readonly addr: string;
	/** This host's address that such a connection comes to. */
	readonly laddr: string;
	readonly name: string;
}

/** One connection of each kind, and one for each address that a Match block names. */
function placesFor(matched: readonly string[]): Place[] {
	const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
	const outer = own.filter(({ internal }) => !internal);
	const lan = outer.find(
		({ family, address }) => family === "IPv4" && !isTailscaleAddress(address),
	);
	const tailnet = outer.find(({ address }) => isTailscaleAddress(address));
	const lanAddress = lan?.address ?? "192.0.2.1";
	return [
		{ addr: "203.0.113.77", laddr: lanAddress, name: "the internet" },
		{ addr: "2001:db8::77", laddr: lanAddress, name: "the internet" },
		{
			addr: lanAddress.replace(/\d+$/, (last) => (last === "77" ? "78" : "77")),
			laddr: lanAddress,
			name: "the LAN",
		},
		{
			addr: "100.101.102.177",
			laddr: tailnet?.address ?? "100.101.102.104",
			name: "the tailnet",
		},
		{ addr: "127.0.0.1", laddr: "127.0.0.1", name: "this host" },
		...[...new Set(matched)].map((addr) => ({
			addr,
			laddr: isLoopbackAddress(addr) ? "127.0.0.1" : lanAddress,
			name: "a Match block names it",
		})),
	];
}

/** Where sshd takes connections. */
interface Entrance {
	/** `undefined`: on the address that such a connection comes to. */
	readonly laddr: string | undefined;
	readonly lport: number;
}

/** Those that Match blocks may tell apart: one, or each of this host's addresses and sshd's ports. */
async function entrances(toldApart: boolean): Promise<Entrance[]> {
	const ports = await sshPorts();
	const [lport = 22] = ports;
	if (!toldApart) return [{ laddr: undefined, lport }];
	const sockets = await sshSockets(await listeningSockets());
	const own = Object.values(networkInterfaces()).flatMap((list) =>
		(list ?? []).map(({ address }) => address),
	);
	const found = new Set<string>();
	for (const { address, port } of sockets)
		for (const laddr of ["*", "0.0.0.0", "::"].includes(address)
			? own
			: [address])
			found.add(`${laddr} ${port}`);
	// What its configuration opens at its next start.
	for (const port of ports)
		if (!sockets.some((socket) => socket.port === port))
			for (const laddr of own) found.add(`${laddr} ${port}`);
	return [...found].map((text) => {
		const [laddr, port] = text.split(" ");
		return { laddr, lport: Number(port) };
	});
}

/** A connection as `sshd -T -C` is told of it. */
interface Way {
	readonly addr: string;
	readonly laddr: string;
	readonly lport: number;
	/** For people. */
	readonly from: string;
}

function waysTo(
	places: readonly Place[],
	entrances: readonly Entrance[],
): Way[] {
	return places.flatMap(({ addr, laddr: usual, name }) =>
		entrances.flatMap(({ laddr, lport }) => {
			const from = `${addr} (${name})`;
			if (laddr === undefined) return { addr, laddr: usual, lport, from };
			return laddr.includes(":") === addr.includes(":")
				? {
						addr,
						laddr,
						lport,
						from: `${from} to ${formatHostPort(laddr, lport)}`,
					}
				: [];
		}),
	);
}

/** A line's words as sshd takes them apart: at blanks and at `=`, but for what is in quotes (misc.c:strdelim). */
function wordsOf(line: string): string[] {
	return [...line.matchAll(/"([^"]*)"|[^\s="]+/g)].map(
		([word, quoted]) => quoted ?? word,
	);
}

/** What a configuration's Match blocks look at. */
export interface Matches {
	readonly isThere: boolean;
	/** Whether any looks at where on this host a connection comes in. */
	readonly isByEntrance: boolean;
	/** Out of each pattern of an address that one may come from. */
	readonly addresses: readonly string[];
}

export function readMatches(text: string): Matches {
	const blocks = text
		.split("\n")
		.map((line) => wordsOf(line))
		.filter(([keyword]) => keyword?.toLowerCase() === "match")
		.map(([, ...words]) => words);
	const names = blocks.flat().map((word) => word.toLowerCase());
	return {
		isThere: blocks.length > 0,
		isByEntrance: names.includes("localport") || names.includes("localaddress"),
		addresses: blocks.flatMap((words) =>
			words.flatMap((word, index) =>
				// Without DNS a host's name is its address.
				["address", "host"].includes((words[index - 1] ?? "").toLowerCase())
					? word.split(",").flatMap(examplesOf)
					: [],
			),
		),
	};
}

/** Addresses that fit a pattern (ssh_config(5), PATTERNS): of a range the first and the last. */
function examplesOf(pattern: string): string[] {
	const range = pattern.includes("/") ? parseRange(pattern) : undefined;
	if (range !== undefined) {
		const [base, bits] = range;
		const { IPv4, IPv6 } = ipaddr;
		const text = `${base.toString()}/${bits}`;
		return (
			base.kind() === "ipv4"
				? [
						IPv4.networkAddressFromCIDR(text),
						IPv4.broadcastAddressFromCIDR(text),
					]
				: [
						IPv6.networkAddressFromCIDR(text),
						IPv6.broadcastAddressFromCIDR(text),
					]
		).map(String);
	}
	for (const rest of ["7", "7.7", "7.7.7", "7::7"]) {
		const example = pattern.replaceAll("?", "7").replaceAll("*", rest);
		if (parseAddress(example) !== undefined) return [example];
	}
	return [];
}

/** The files that sshd reads, includes first to last, and when the newest of them or of their folders was changed. */
export async function configFiles(): Promise<{
	files: string[];
	newest: { file: string; atMs: number };
}> {
	const files = [mainFile];
	const folders = new Set<string>();
	for (const file of files) {
		const text = await readFile(file, "utf8");
		for (const line of text.split("\n")) {
			const [keyword, ...patterns] = wordsOf(line);
			if (keyword?.toLowerCase() !== "include") continue;
			for (const pattern of patterns) {
				const full = path.resolve("/etc/ssh", pattern);
				folders.add(path.dirname(full));
				for await (const found of glob(full))
					if (!files.includes(found)) files.push(found);
			}
		}
	}
	let newest = { file: mainFile, atMs: 0 };
	for (const file of [...files, ...folders]) {
		const atMs = (await stat(file).catch(() => undefined))?.mtimeMs ?? 0;
		if (atMs > newest.atMs) newest = { file, atMs };
	}
	return { files, newest };
}
