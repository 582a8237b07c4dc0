import { codeOf } from "../net/errorCode.ts";
import { codexHealth, isCodexHealth } from "../ollama/codexHealth.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	asLocal,
	type Caller,
	isReply,
	type NoReply,
	openCaller,
	type Reply,
	readError,
	readObject,
} from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";
import { checkLockout } from "./lockout.ts";
import { resolve, tailnetAddresses, type Way, wayTo } from "./place.ts";
import { checkStream, type Timings } from "./stream.ts";
import { checkWithKey } from "./withKey.ts";
import { checkWithoutKey, checkWrongKey } from "./withoutKey.ts";

/** What is asked of a gate. */
export interface GateQuestion {
	/** `http://host:port` or `https://…` */
	readonly origin: string;
	readonly key: string | undefined;
	readonly model: string | undefined;
	/** How long a model may take to load. */
	readonly waitMs: number;
	readonly lockout: boolean;
}

/** Told what is being looked at. */
export type Progress = (what: string) => void;

const keyChecks = [
	checks.keyAccepted,
	checks.scopes,
	checks.reads,
	checks.routes,
	checks.errorShapes,
];
const streamChecks = [
	checks.stream,
	checks.uncollected,
	checks.afterLeaving,
	checks.cancel,
];

/**
 * Probes one gate, from its name to a stream. The key is sent only to where a
 * call without one was refused, and only over an encrypted way.
 */
export async function checkGate(
	question: GateQuestion,
	progress: Progress,
): Promise<{ results: Result[]; timings?: Timings }> {
	const { origin } = question;
	progress(`looking for ${origin}`);
	const host = new URL(origin).hostname.replace(/^\[|\]$/g, "");
	let ways: Way[];
	try {
		const all = await Promise.all((await resolve(host)).map(wayTo));
		// An address that this device has no route to is not used, where there is another.
		const routed = all.filter(({ from }) => from !== undefined);
		ways = routed.length > 0 ? routed : all;
	} catch (error) {
		const reason = `the name ${host} cannot be looked up (${codeOf(error)})`;
		return {
			results: [
				finding(
					checks.reachable,
					[reason],
					"Is this device in the tailnet (tailscale status)? The server's 100.… address works without names.",
				),
				...rest(
					"the server was not found",
					checks.elsewhere,
					checks.encrypted,
					...withoutKeyChecks,
					...keyChecks,
					...streamChecks,
					...(question.lockout ? [checks.lockout] : []),
				),
			],
		};
	}
	return checkWays(question, ways, progress);
}

/** One address of the gate, and what it said to the first call. */
interface Door {
	readonly address: string;
	readonly caller: Caller;
	readonly first: Reply | NoReply;
	/** An Ollama that answers everybody. */
	readonly isBare: boolean;
	/** One that does so only for a Host of its own, which everybody can send. */
	readonly wantsHost: boolean;
}

/**
 * Probes a gate that has these addresses. Each is knocked at without a key; the
 * key goes to one of them alone, the first that answers.
 */
export async function checkWays(
	question: GateQuestion,
	ways: readonly Way[],
	progress: Progress,
): Promise<{ results: Result[]; timings?: Timings }> {
	const doors = await Promise.all(
		ways.map(({ address }) => openDoor(question.origin, address)),
	);
	try {
		const seen = await checkDoors(question, doors, ways, progress);
		return question.key === undefined ? seen : withoutThe(question.key, seen);
	} finally {
		await Promise.all(doors.map(({ caller }) => caller.close()));
	}
}

/** A server that knows the key may put it into anything it says. */
function withoutThe(
	key: string,
	{ results, timings }: { results: Result[]; timings?: Timings },
): { results: Result[]; timings?: Timings } {
	return {
		results: results.map((result) => ({
			...result,
			evidence: result.evidence.map((line) => line.replaceAll(key, "KEY")),
		})),
		...(timings === undefined
			? {}
			: { timings: { ...timings, model: excerpt(timings.model, key) } }),
	};
}

const withoutKeyChecks = [
	checks.noKey,
	checks.unknownPaths,
	checks.challenge,
	checks.refusalShape,
	checks.wrongKey,
];

function rest(
	reason: string,
	...left: (typeof checks)[keyof typeof checks][]
): Result[] {
	return left.map((check) => unknown(check, reason));
}

async function checkDoors(
	{ origin, key, model, waitMs, lockout }: GateQuestion,
	doors: readonly Door[],
	ways: readonly Way[],
	progress: Progress,
): Promise<{ results: Result[]; timings?: Timings }> {
	const main = doors.find(({ first }) => isReply(first)) ?? doors[0];
	if (main === undefined) throw new Error("a gate without an address");
	const { caller, first } = main;
	progress("knocking at every call without a key");
	const isOnly = doors.length === 1;
	const atMain = await checkDoor(main, origin, isOnly);
	const seen = [atMain];
	const shut: string[] = [];
	for (const door of doors) {
		if (door === main) continue;
		if (isReply(door.first) || !isReply(first))
			seen.push(await checkDoor(door, origin, isOnly));
		// Where others answer, a port at which nothing listens lets nobody in.
		else if (door.first.code === "ECONNREFUSED") shut.push(door.address);
		// Clients go on to the next address, so it is not a finding of its own.
		else {
			const reason = `no answer from ${door.address} (${door.first.code})`;
			seen.push({
				reachable: unknown(checks.reachable, reason),
				withoutKey: rest(reason, ...withoutKeyChecks),
			});
		}
	}
	const reachable = worst(seen.map((at) => at.reachable));
	const withoutKey = withoutKeyChecks.map((_, i) =>
		worst(seen.flatMap((at) => at.withoutKey[i] ?? [])),
	);
	const encrypted = judgeWay(origin, ways, isReply(first) ? undefined : first);
	const results = [
		{
			...reachable,
			evidence: [
				...reachable.evidence,
				...shut.map((address) => `nothing listens at ${address}`),
			],
		},
		judgePlace(ways),
		encrypted,
		...withoutKey,
	];
	if (atMain.reachable.state !== "ok") {
		results.push(
			...rest(
				main.isBare
					? "the key was not sent: nobody asks for one here"
					: noGate(first),
				...keyChecks,
				...streamChecks,
				...(lockout ? [checks.lockout] : []),
			),
		);
		return { results };
	}
	const wrongKey = withoutKey.at(-1);

	let timings: Timings | undefined;
	const obstacle =
		key === undefined
			? "no key was given: --key-stdin, or LLAMAGATE_KEY"
			: encrypted.state === "finding"
				? "the key was not sent: the way is not encrypted"
				: wrongKey?.state === "finding"
					? "the key was not sent: any would be taken"
					: undefined;
	if (key === undefined || obstacle !== undefined)
		results.push(...rest(obstacle ?? "", ...keyChecks, ...streamChecks));
	else {
		progress("reading with the key");
		const use = await checkWithKey(caller, key);
		results.push(...use.results);
		const asked =
			model === undefined
				? use.models.filter((name) => !/embed|bge-|minilm/i.test(name))
				: [model];
		const [likeliest] = asked;
		if (use.obstacle !== undefined)
			results.push(...rest(use.obstacle, ...streamChecks));
		else if (likeliest === undefined)
			results.push(
				...rest(
					"no model is known here that could be asked: name one with --model",
					...streamChecks,
				),
			);
		else {
			progress(
				`waiting for ${excerpt(likeliest, key)}; loading it can take minutes`,
			);
			const streamed = await checkStream(caller, key, asked, waitMs);
			results.push(...streamed.results);
			timings = streamed.timings;
		}
	}
	if (lockout) {
		progress("showing wrong keys");
		// What was lost before does not count: a ban shows by what is lost from here on.
		const another = openCaller(origin, [main.address]);
		try {
			results.push(await checkLockout(another));
		} finally {
			await another.close();
		}
	}
	return { results, ...(timings === undefined ? {} : { timings }) };
}

/** What strangers see at one address. */
interface Seen {
	readonly reachable: Result;
	/** In the order of `withoutKeyChecks`. */
	readonly withoutKey: readonly Result[];
}

async function checkDoor(
	door: Door,
	origin: string,
	isOnly: boolean,
): Promise<Seen> {
	const { address, caller, first, isBare } = door;
	const reachable = judgeFirst(door, origin);
	// An Ollama that answers everybody is worth the whole list.
	if (!isBare && reachable.state !== "ok")
		return { reachable, withoutKey: rest(noGate(first), ...withoutKeyChecks) };
	const results = [
		...(await checkWithoutKey(caller)),
		isBare
			? unknown(checks.wrongKey, "nobody asks for a key here")
			: await checkWrongKey(caller),
	];
	const withoutKey = results.map((result) => ({
		...result,
		evidence: isOnly
			? result.evidence
			: result.evidence.map((line) => `${address}: ${line}`),
	}));
	return { reachable, withoutKey };
}

/** One check's results at several addresses: the worst of them, with what was seen at each. */
function worst(results: readonly Result[]): Result {
	const states = ["finding", "unknown", "absent", "ok"];
	const [first, ...others] = results.toSorted(
		(a, b) => states.indexOf(a.state) - states.indexOf(b.state),
	);
	if (first === undefined) throw new Error("a check without a result");
	return {
		...first,
		evidence: [first, ...others].flatMap(({ evidence }) => evidence),
	};
}

function noGate(first: Reply | NoReply): string {
	if (!isReply(first)) return `the server did not answer (${first.code})`;
	return first.status === 429
		? "this device is locked out for now"
		: "no gate answers here";
}

const firstCall = { method: "GET", path: "/api/version" };

async function openDoor(origin: string, address: string): Promise<Door> {
	const caller = openCaller(origin, [address]);
	const first = await caller.call(firstCall);
	// An Ollama on loopback that others are led to says so to a Host that it does not know.
	if (isReply(first) && first.status === 403 && first.body === "") {
		const local = asLocal(caller);
		const again = await local.call(firstCall);
		if (await isBare(local, again))
			return {
				address,
				caller: local,
				first: again,
				isBare: true,
				wantsHost: true,
			};
	}
	return {
		address,
		caller,
		first,
		wantsHost: false,
		isBare: await isBare(caller, first),
	};
}

/**
 * Open WebUI has an /api/version of its own; the words at / are Ollama's, and so
 * is what newer ones answer at `codexHealth`. Where only / is guarded, there is
 * an Ollama behind it all the same.
 */
async function isBare(
	caller: Caller,
	first: Reply | NoReply,
): Promise<boolean> {
	if (!isReply(first) || first.status !== 200) return false;
	if (typeof readObject(first.body)?.version !== "string") return false;
	const root = await caller.call({ method: "GET", path: "/" });
	if (
		isReply(root) &&
		(root.status === 401 || /^Ollama is running/.test(root.body))
	)
		return true;
	const health = await caller.call({ method: "GET", path: codexHealth });
	return isReply(health) && isCodexHealth(health.status, health.body);
}

function judgeFirst(
	{ first, isBare, wantsHost, address }: Door,
	origin: string,
): Result {
	const check = checks.reachable;
	const where = `${origin} (${address})`;
	if (!isReply(first))
		return finding(
			check,
			[`no answer from ${where}: ${first.code}`],
			adviceFor(first.code),
		);
	const { status, headers, body } = first;
	const said = excerpt(readError("native", body) ?? "");
	const seen = `GET /api/version at ${where}: ${status}${said === "" ? "" : `, "${said}"`}`;
	if (status === 401)
		return /realm="llamagate"/.test(headers["www-authenticate"] ?? "")
			? ok(check, where)
			: ok(check, where, "it does not call itself llamagate");
	if (status === 429)
		return unknown(
			check,
			seen,
			`wait ${excerpt(headers["retry-after"] ?? "some")} s and try again`,
		);
	if (isBare)
		return finding(
			check,
			[
				`${where}: Ollama ${excerpt(String(readObject(body)?.version))} answers without a key`,
				...(wantsHost
					? [
							"it is on the server's loopback, and something there leads others to it: tailscaled without a tunnel device (userspace networking), tailscale serve, a tunnel or a proxy. Its check of the Host header stops nobody: 127.0.0.1 was sent",
						]
					: []),
			],
			wantsHost
				? "On the server, at once: sudo llamagate doctor --only ollama --only tailscale, which names what leads here; until that is mended: sudo systemctl stop ollama"
				: "On the server, at once: sudo llamagate setup",
		);
	if (status === 403 && /not on the gate's network/.test(said))
		return finding(
			check,
			[seen],
			"Reach it over the tailnet (tailscale status), by its 100.… address or its name there.",
		);
	return finding(
		check,
		[seen, "that is neither a gate nor Ollama"],
		"Check host and port: llamagate listens on 11434 unless its configuration says otherwise.",
	);
}

function adviceFor(code: string): string {
	if (code === "ECONNREFUSED")
		return "The host is there and nothing listens on that port, or fail2ban has banned this device. On the server: systemctl status llamagate, then sudo llamagate check";
	if (
		/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED)|EPROTO/.test(
			code,
		)
	)
		return "llamagate itself speaks http://; with https:// the certificate of what is in front of it must be good for that name.";
	if (
		code.startsWith("HPE_") ||
		code === "UND_ERR_SOCKET" ||
		code === "ECONNRESET"
	)
		return "Something is there that speaks no HTTP, or does not speak to this device. If it is HTTPS, write https://.";
	return "Is this device in the tailnet (tailscale status), does the server answer tailscale ping, and does the tailnet's policy allow it (llamagate policy print)?";
}

function judgePlace(ways: readonly Way[]): Result {
	const own = ways.filter(({ isOwn }) => isOwn);
	if (own.length > 0)
		return finding(
			checks.elsewhere,
			[
				`${own.map(({ address }) => address).join(", ")} is this device's own address`,
			],
			"Run it on another device of your tailnet as well.",
		);
	return ok(
		checks.elsewhere,
		`sent from ${ways.map(({ from }) => from ?? "nowhere").join(", ")}`,
	);
}

/** @param silence why nothing answered, where nothing did: then no way was seen to be encrypted */
function judgeWay(
	origin: string,
	ways: readonly Way[],
	silence: NoReply | undefined,
): Result {
	const check = checks.encrypted;
	const nobody =
		silence === undefined
			? undefined
			: unknown(check, `the server did not answer (${silence.code})`);
	if (origin.startsWith("https://")) return nobody ?? ok(check, "by HTTPS");
	const open = ways.filter(({ isPrivate }) => !isPrivate);
	if (open.length === 0)
		return (
			nobody ??
			ok(
				check,
				ways.every(({ isOwn }) => isOwn)
					? "it does not leave this device"
					: "by Tailscale",
			)
		);
	const inTailnet = tailnetAddresses();
	return finding(
		check,
		[
			...open.map(({ address, from, viaTailnet }) =>
				viaTailnet
					? `${address} is not an address of Tailscale's: beyond the node that leads there, the way is plain HTTP`
					: `plain HTTP to ${address}, sent from ${from ?? "nowhere"}, which is not Tailscale's`,
			),
			inTailnet.length === 0
				? "this device has no address in a tailnet"
				: `this device is in a tailnet: ${inTailnet.join(", ")}`,
		],
		"Join this device to the tailnet (tailscale up), and use the server's 100.… address or its name there.",
	);
}
