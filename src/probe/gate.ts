import { codeOf } from "../net/errorCode.ts";
import { formatHostPort } from "../net/ranges.ts";
import { usualPort } from "../ollama/usualPort.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import type { Timings } from "./arrivals.ts";
import { isReply, type NoReply, openCaller, readObject } from "./caller.ts";
import { checks, closeOllama, finding, ok, unknown } from "./checks.ts";
import { type Door, judgeFirst, noGate, openDoor } from "./door.ts";
import { checkLockout } from "./lockout.ts";
import { resolve, tailnetAddresses, type Way, wayTo } from "./place.ts";
import { checkStream } from "./stream.ts";
import { checkWithKey } from "./withKey.ts";
import { checkWithoutKey, checkWrongKey, judgeLetIn } from "./withoutKey.ts";

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
	const beside = Promise.all(
		// On the server itself Ollama's port is loopback's.
		ways
			.filter(({ isOwn }) => !isOwn)
			.map(({ address }) => lookBeside(origin, address)),
	);
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
	const bare = (await beside).filter((result) => result !== undefined);
	const withoutKey = withoutKeyChecks.map((check, i) =>
		worst([
			...(check === checks.noKey ? bare : []),
			...seen.flatMap((at) => at.withoutKey[i] ?? []),
		]),
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
	const { address, caller, first, isBare, letsIn } = door;
	const reachable = judgeFirst(door, origin);
	// An Ollama that answers everybody is worth the whole list.
	if (!isBare && reachable.state !== "ok")
		return { reachable, withoutKey: rest(noGate(first), ...withoutKeyChecks) };
	const results = [
		...(letsIn ? judgeLetIn() : await checkWithoutKey(caller)),
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

/** Whether Ollama itself answers on its usual port, where the gate has another. */
async function lookBeside(
	origin: string,
	address: string,
): Promise<Result | undefined> {
	const { hostname, port } = new URL(origin);
	if (port === String(usualPort)) return undefined;
	const { caller, isBare, first } = await openDoor(
		`http://${hostname}:${usualPort}`,
		address,
	);
	await caller.close();
	return isBare && isReply(first)
		? finding(
				checks.noKey,
				[
					`${formatHostPort(address, usualPort)}: Ollama ${excerpt(String(readObject(first.body)?.version))} answers without a key, beside the gate`,
				],
				closeOllama,
			)
		: undefined;
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
