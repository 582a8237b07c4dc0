import { generateKey } from "../keys/newKey.ts";
import { codexHealth } from "../ollama/codexHealth.ts";
import {
	type Family,
	familyOf,
	type Route,
	routes,
	type Scope,
} from "../ollama/routes.ts";
import type { Result } from "../report/result.ts";
import {
	type Caller,
	isReply,
	type NoReply,
	type Reply,
	readError,
} from "./caller.ts";
import { checks, finding, firstFew, ok, unknown } from "./checks.ts";

interface Call {
	readonly method: string;
	readonly path: string;
	readonly family: Family;
}

interface Answered extends Call {
	readonly reply: Reply | NoReply;
}

/** Not in the table, or not as it is written there; Ollama itself takes some of them (facts of gin: it decodes, and cleans slashes). */
const strangePaths = [
	["GET", "/llamagate-probe"],
	["GET", "/api/tags/"],
	["GET", "/api/%74ags"],
	["GET", "//api/tags"],
	["GET", "/api/./tags"],
	["GET", "/v1/llamagate-probe"],
	["GET", "/v1/messages/llamagate-probe"],
	["GET", "/metrics"],
	// Of Ollama 0.34.0 and newer, where it passes a desktop client's calls on; 200 to everybody.
	["GET", codexHealth],
	["PUT", "/api/tags"],
	["OPTIONS", "/api/chat"],
] as const;

const parameterExamples: Readonly<Record<string, string>> = {
	":model": "llamagate-probe",
	":digest": `sha256:${"0".repeat(64)}`,
	":key": "llamagate-probe",
};

/**
 * What could change something if nobody guarded it is asked last, and only if
 * all else was refused; with an Origin that Ollama itself turns away (403, from
 * its CORS check, ahead of any route), and with a body that names nothing.
 */
const waves: readonly (readonly Scope[])[] = [
	["read"],
	["infer"],
	["manage"],
	["account"],
];
const foreignOrigin = "https://llamagate-probe.invalid";

/** Knocks at every route and at some other paths without a key. */
export async function checkWithoutKey(caller: Caller): Promise<Result[]> {
	const answered: Answered[] = [];
	const held: string[] = [];
	for (const scopes of waves) {
		const wave = routes.filter(({ scope }) => scopes.includes(scope));
		const isHarmless = scopes.includes("read") || scopes.includes("infer");
		if (!isHarmless && answered.some(isLetThrough))
			held.push(...wave.map(({ id }) => id));
		else
			answered.push(
				...(await askAll(wave.map((route) => () => knock(caller, route)))),
			);
	}
	const strange = await askAll(
		strangePaths.map(
			([method, path]) =>
				() =>
					askPath(caller, method, path),
		),
	);
	return [
		judgeRoutes(answered, held),
		judgeStrange(strange),
		...judgeRefusals([...answered, ...strange].filter(isRefused)),
	];
}

/**
 * Of a gate that lets this device in: what it says to strangers cannot be seen
 * from here, and whether that is meant is for its owner to say.
 */
export function judgeLetIn(): Result[] {
	const reason = "the gate lets this device in without a key";
	return [
		finding(
			checks.noKey,
			[reason],
			"If the server's configuration has identity.mode login and a rule names this device's owner, that is meant: for what strangers meet, probe from a device that no rule names, such as a tagged one. If not, something before the gate puts a key into calls that have none: have it leave that off.",
		),
		...[checks.unknownPaths, checks.challenge, checks.refusalShape].map(
			(check) => unknown(check, reason),
		),
	];
}

/** Shows a key that was made up just now, once: far from what locks a device out. */
export async function checkWrongKey(caller: Caller): Promise<Result> {
	const check = checks.wrongKey;
	const path = "/api/tags";
	const reply = await caller.call({ method: "GET", path, key: generateKey() });
	if (!isReply(reply)) return unknown(check, `no answer (${reply.code})`);
	const seen = `GET ${path} with a key that was made up: ${reply.status}`;
	if (reply.status === 401) return ok(check, seen);
	// Whether it is locked out or held to other devices, the key was not looked at.
	if ([403, 429].includes(reply.status)) return unknown(check, seen);
	return finding(
		check,
		[seen],
		"Put the gate in front: on the server, sudo llamagate setup. What asks for a key here does not look at it.",
	);
}

/** A route's path, with something in its parameter's place that is nowhere. */
export function examplePath(route: Route): string {
	return route.path.replace(
		/:\w+$/,
		(name) => parameterExamples[name] ?? "llamagate-probe",
	);
}

async function knock(caller: Caller, route: Route): Promise<Answered> {
	const path = examplePath(route);
	const changes = route.scope === "manage" || route.scope === "account";
	const reply = await caller.call({
		method: route.method,
		path,
		...(route.body === "none" ? {} : { body: "{}" }),
		...(changes ? { headers: { origin: foreignOrigin } } : {}),
	});
	return { method: route.method, path, family: route.family, reply };
}

async function askPath(
	caller: Caller,
	method: string,
	path: string,
): Promise<Answered> {
	const reply = await caller.call({ method, path });
	return { method, path, family: familyOf(path), reply };
}

/** Four at a time: the way may be long, and nobody is to be flooded. */
export async function askAll<A extends { readonly reply: Reply | NoReply }>(
	asks: readonly (() => Promise<A>)[],
): Promise<A[]> {
	const answers: A[] = [];
	for (let i = 0; i < asks.length; i += 4) {
		const some = await Promise.all(asks.slice(i, i + 4).map((ask) => ask()));
		answers.push(...some);
		// Anyone who has stopped answering is not waited for again and again.
		if (some.every(({ reply }) => !isReply(reply))) break;
	}
	return answers;
}

function isRefused({ reply }: Answered): boolean {
	return isReply(reply) && reply.status === 401;
}

function isLetThrough({ reply }: Answered): boolean {
	return isReply(reply) && reply.status !== 401;
}

function describe({ method, path, reply }: Answered): string {
	const said = isReply(reply) ? String(reply.status) : reply.code;
	return `${method} ${path}: ${said} in place of 401`;
}

function judgeRoutes(
	answered: readonly Answered[],
	held: readonly string[],
): Result {
	const others = answered.filter((call) => !isRefused(call));
	const silent = others.filter(({ reply }) => !isReply(reply));
	if (others.length === 0 && answered.length === routes.length)
		return ok(checks.noKey, `${answered.length} calls, each refused with 401`);
	const evidence = [
		`${others.length} of ${answered.length} calls were not refused with 401`,
		...firstFew(others.map(describe)),
		...(held.length === 0
			? []
			: [
					`not asked for, since nobody guards here and they could change something: ${held.length} calls that manage models or act as the owner`,
				]),
	];
	if (silent.length === others.length)
		return unknown(checks.noKey, ...evidence);
	return finding(
		checks.noKey,
		evidence,
		"Put the gate in front: on the server, sudo llamagate setup. If a proxy is before the gate, have it pass everything on and answer nothing itself.",
	);
}

function judgeStrange(strange: readonly Answered[]): Result {
	const others = strange.filter((call) => !isRefused(call));
	if (others.length === 0 && strange.length === strangePaths.length)
		return ok(
			checks.unknownPaths,
			`${strange.length} paths and methods that the gate does not pass on, each refused with 401`,
		);
	const evidence = firstFew(others.map(describe));
	if (others.every(({ reply }) => !isReply(reply)))
		return unknown(checks.unknownPaths, ...evidence);
	return finding(
		checks.unknownPaths,
		evidence,
		"The gate answers 401 to all of these. Put it in front (on the server: sudo llamagate setup), and have whatever is before it pass paths on as they come.",
	);
}

function judgeRefusals(refused: readonly Answered[]): Result[] {
	if (refused.length === 0)
		return [checks.challenge, checks.refusalShape].map((check) =>
			unknown(check, "no call was refused with 401"),
		);
	const bare = refused.filter(
		({ reply }) => isReply(reply) && !reply.headers["www-authenticate"],
	);
	const name = ({ method, path }: Call) => `${method} ${path}`;
	// A reply to HEAD has no body.
	const withBody = refused.filter(({ method }) => method !== "HEAD");
	const broken = withBody.filter(
		({ reply }) => isReply(reply) && reply.broken !== undefined,
	);
	const misshapen = withBody.filter(
		({ family, reply }) =>
			isReply(reply) &&
			reply.broken === undefined &&
			readError(family, reply.body) === undefined,
	);
	return [
		bare.length === 0
			? ok(
					checks.challenge,
					`WWW-Authenticate on all ${refused.length} of them`,
				)
			: finding(
					checks.challenge,
					[
						`no WWW-Authenticate on ${bare.length} of ${refused.length}`,
						...firstFew(bare.map(name), 3),
					],
					"The gate sends it always. Have the proxy before it leave this header alone.",
				),
		judgeShapes(withBody.length, misshapen, broken),
	];
}

function judgeShapes(
	asked: number,
	misshapen: readonly Answered[],
	broken: readonly Answered[],
): Result {
	const check = checks.refusalShape;
	const name = ({ method, path }: Call) => `${method} ${path}`;
	if (misshapen.length > 0)
		return finding(
			check,
			[
				`not so for ${misshapen.length} of ${asked}`,
				...firstFew(
					misshapen.map(
						(call) => `${name(call)}: no error of the ${call.family} API`,
					),
					3,
				),
			],
			"The gate sends them so. Have the proxy before it leave replies alone, error pages in particular.",
		);
	if (broken.length > 0)
		return unknown(
			check,
			`${broken.length} of ${asked} did not come to their end`,
			...firstFew(broken.map(name), 3),
		);
	return ok(
		check,
		`${asked} of them, each one line of JSON in the shape of its API`,
	);
}
