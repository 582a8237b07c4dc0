import { familyOf, routes } from "../ollama/routes.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	type Caller,
	callTwice,
	isObject,
	isReply,
	type NoReply,
	type Reply,
	type Request,
	readError,
	readObject,
} from "./caller.ts";
import { absent, checks, finding, firstFew, ok, unknown } from "./checks.ts";
import { askAll, examplePath } from "./withoutKey.ts";

/** What the key turned out to be good for. */
export interface KeyUse {
	readonly results: readonly Result[];
	/** Whether it may make replies. */
	readonly infers: boolean;
	/** Models that the server lists and runs itself, those that are loaded first; none if the key may not read. */
	readonly models: readonly string[];
	/** Why no stream can be asked for, where that is so. */
	readonly obstacle: string | undefined;
}

/**
 * Uses the key for calls that change nothing: reads, and requests that are
 * wrong on purpose. No call that manages models or acts as the owner is ever
 * made with it.
 */
export async function checkWithKey(
	caller: Caller,
	key: string,
): Promise<KeyUse> {
	const call = (request: Request) => callTwice(caller, { ...request, key });
	const tags = await call({ method: "GET", path: "/api/tags" });
	const refused = judgeKey(tags, key);
	if (refused !== undefined) {
		const reason = "the gate did not take the key";
		return {
			results: [
				refused,
				...[checks.scopes, checks.reads, checks.routes, checks.errorShapes].map(
					(check) => unknown(check, reason),
				),
			],
			infers: false,
			models: [],
			obstacle: reason,
		};
	}
	// Ollama refuses a request that names no model; the gate looks at the scope first.
	const embed = await call({ method: "POST", path: "/api/embed", body: "{}" });
	const lacks = (reply: Reply | NoReply) =>
		isReply(reply) &&
		reply.status === 403 &&
		/needs the scope/.test(reply.body);
	const reads = !lacks(tags);
	const infers = !lacks(embed);
	const models = reads && isReply(tags) ? readModels(tags.body) : [];
	return {
		results: [
			ok(
				checks.keyAccepted,
				`GET /api/tags: ${isReply(tags) ? tags.status : ""}`,
			),
			judgeScopes([tags, embed], reads, infers, key),
			reads
				? await checkReads(call, tags, models, key)
				: absent(checks.reads, "the key may not read"),
			await checkRoutes(call, reads, infers, key),
			await checkErrorShapes(call, reads, infers),
		],
		infers,
		models: reads ? await ownModels(call, models) : [],
		obstacle: infers ? undefined : "the key may not infer",
	};
}

/** The gate's own are a line. */
const maxRefusalLength = 1_000;

type CallWithKey = (request: Request) => Promise<Reply | NoReply>;

/** Models that are loaded answer at once; those in the cloud cost money. */
async function ownModels(
	call: CallWithKey,
	models: readonly string[],
): Promise<string[]> {
	const running = await call({ method: "GET", path: "/api/ps" });
	const loaded = isReply(running) ? readModels(running.body) : [];
	const [first, later] = [true, false].map((isLoaded) =>
		models.filter((name) => loaded.includes(name) === isLoaded),
	);
	return [...(first ?? []), ...(later ?? [])].filter(
		(name) => !name.endsWith("cloud"),
	);
}

/** @returns what is wrong with the key, if anything */
function judgeKey(tags: Reply | NoReply, key: string): Result | undefined {
	if (!isReply(tags))
		return unknown(checks.keyAccepted, `no answer (${tags.code})`);
	const { status } = tags;
	const said = excerpt(readError("native", tags.body) ?? "", key);
	const evidence = [
		`GET /api/tags: ${status}${said === "" ? "" : `, "${said}"`}`,
	];
	if (status === 401)
		return finding(
			checks.keyAccepted,
			evidence,
			"Paste the key whole, without quotes. On the server, sudo llamagate keys list shows whether it was revoked; sudo llamagate keys add NAME makes a new one.",
		);
	if (status === 429) return unknown(checks.keyAccepted, ...evidence);
	if (status !== 403 || /needs the scope/.test(said)) return undefined;
	if (/" expired/.test(said))
		return finding(
			checks.keyAccepted,
			evidence,
			"On the server: sudo llamagate keys rotate NAME --expires 90d",
		);
	return finding(
		checks.keyAccepted,
		evidence,
		"Go by what it says: a key can be held to devices (keys file, bind), and the gate to networks (sources).",
	);
}

function judgeScopes(
	replies: readonly (Reply | NoReply)[],
	reads: boolean,
	infers: boolean,
	key: string,
): Result {
	// A refusal names all that the key has; without one nothing does.
	const listed = replies
		.flatMap((reply) =>
			isReply(reply) && reply.status === 403
				? (readError("native", reply.body) ?? "")
				: [],
		)
		.filter((said) => said.length < maxRefusalLength)
		.map((said) => /needs the scope .* has ([a-z, ]+)$/.exec(said)?.[1])
		.find((list) => list !== undefined);
	if (reads && infers)
		return ok(
			checks.scopes,
			"GET /api/tags and POST /api/embed are not refused",
			"whether it may also manage was not tried, since that could change something; on the server: sudo llamagate keys list",
		);
	return finding(
		checks.scopes,
		[
			`it may not ${[...(reads ? [] : ["read"]), ...(infers ? [] : ["infer"])].join(" nor ")}${listed === undefined ? "" : `; the gate says that it has: ${excerpt(listed, key)}`}`,
		],
		"If that is not meant so, on the server: sudo llamagate keys add NAME",
	);
}

async function checkReads(
	call: CallWithKey,
	tags: Reply | NoReply,
	models: readonly string[],
	key: string,
): Promise<Result> {
	const isList = (name: string) => (body: string) =>
		Array.isArray(readObject(body)?.[name]);
	const [model] = models;
	const calls: [string, string, (body: string) => boolean][] = [
		["GET", "/", (body) => /Ollama is running/.test(body)],
		["HEAD", "/api/version", (body) => body === ""],
		[
			"GET",
			"/api/version",
			(body) => typeof readObject(body)?.version === "string",
		],
		["GET", "/api/tags", isList("models")],
		["GET", "/api/ps", isList("models")],
		["GET", "/v1/models", isList("data")],
		// A name with a slash is not a path segment.
		...(model === undefined || !/^[A-Za-z0-9._:@-]+$/.test(model)
			? []
			: [
					[
						"GET",
						`/v1/models/${model}`,
						(body: string) => readObject(body)?.id === model,
					] as [string, string, (body: string) => boolean],
				]),
	];
	const wrong: string[] = [];
	const lost: string[] = [];
	let version = "";
	for (const [method, path, isRight] of calls) {
		const reply = path === "/api/tags" ? tags : await call({ method, path });
		if (!isReply(reply)) lost.push(`${method} ${path}: ${reply.code}`);
		else if (reply.status !== 200)
			wrong.push(
				`${method} ${path}: ${reply.status} ${excerpt(readError(familyOf(path), reply.body) ?? "", key)}`.trim(),
			);
		else if (reply.broken !== undefined)
			lost.push(`${method} ${path}: 200, but it broke off (${reply.broken})`);
		else if (!isRight(reply.body))
			wrong.push(`${method} ${path}: 200, but not what Ollama answers`);
		else if (method === "GET" && path === "/api/version")
			version = excerpt(String(readObject(reply.body)?.version), key);
	}
	if (wrong.length > 0)
		return finding(
			checks.reads,
			[
				`${wrong.length + lost.length} of ${calls.length} calls went wrong`,
				...wrong,
				...lost,
			],
			"On the server: systemctl status ollama, then sudo llamagate check",
		);
	if (lost.length > 0)
		return unknown(
			checks.reads,
			`${lost.length} of ${calls.length} calls got no whole answer`,
			...lost,
		);
	return ok(
		checks.reads,
		`${calls.length} calls; Ollama ${version}, ${models.length === 1 ? "1 model" : `${models.length} models`}`,
	);
}

/**
 * Every call that reads or infers, with a body that names no model: Ollama refuses
 * such a one before it loads anything, and it is the gate's refusals that count.
 */
async function checkRoutes(
	call: CallWithKey,
	reads: boolean,
	infers: boolean,
	key: string,
): Promise<Result> {
	const allowed = routes.filter(
		({ scope }) => (scope === "read" && reads) || (scope === "infer" && infers),
	);
	if (allowed.length === 0)
		return absent(checks.routes, "the key may neither read nor infer");
	const answered = await askAll(
		allowed.map((route) => async () => ({
			id: route.id,
			family: route.family,
			reply: await call({
				method: route.method,
				path: examplePath(route),
				...(route.body === "none" ? {} : { body: "{}" }),
			}),
		})),
	);
	const wrong = answered.flatMap(({ id, family, reply }) => {
		if (!isReply(reply)) return { id, says: reply.code, isSilent: true };
		const { status, body } = reply;
		const said = excerpt(readError(family, body) ?? "", key);
		const isRefused =
			[401, 405, 407].includes(status) ||
			(status === 403 && /needs the scope/.test(said));
		return isRefused || status === 429
			? { id, says: `${status} ${said}`.trim(), isSilent: status === 429 }
			: [];
	});
	const unasked = allowed.length - answered.length;
	if (wrong.length === 0 && unasked === 0)
		return ok(checks.routes, `${allowed.length} calls, and none was refused`);
	const evidence = [
		`${wrong.length} of ${allowed.length} calls did not get through${unasked === 0 ? "" : `, and ${unasked} were not made`}`,
		...firstFew(wrong.map(({ id, says }) => `${id}: ${says}`)),
	];
	return wrong.every(({ isSilent }) => isSilent)
		? unknown(checks.routes, ...evidence)
		: finding(
				checks.routes,
				evidence,
				"On the server: journalctl -u llamagate -n 50, then sudo llamagate check",
			);
}

async function checkErrorShapes(
	call: CallWithKey,
	reads: boolean,
	infers: boolean,
): Promise<Result> {
	const broken = '{"model":';
	const cases: [string, string, number, string?][] = [
		["GET", "/llamagate-probe", 404],
		["GET", "/v1/llamagate-probe", 404],
		["GET", "/v1/messages/llamagate-probe", 404],
		["PUT", "/api/tags", 405],
		...(reads
			? [["POST", "/api/show", 400, broken] as [string, string, number, string]]
			: []),
		...(infers
			? [
					["POST", "/v1/chat/completions", 400, broken] as [
						string,
						string,
						number,
						string,
					],
				]
			: []),
	];
	const wrong: string[] = [];
	const lost: string[] = [];
	for (const [method, path, status, body] of cases) {
		const reply = await call({
			method,
			path,
			...(body === undefined ? {} : { body }),
		});
		const name = `${method} ${path}${body === undefined ? "" : " with a body that is not JSON"}`;
		if (!isReply(reply)) lost.push(`${name}: ${reply.code}`);
		else if (reply.status !== status)
			wrong.push(`${name}: ${reply.status} in place of ${status}`);
		else if (reply.broken !== undefined)
			lost.push(`${name}: ${status}, but it broke off (${reply.broken})`);
		else if (readError(familyOf(path), reply.body) === undefined)
			wrong.push(
				`${name}: ${status}, but no error of the ${familyOf(path)} API`,
			);
		else if (status === 405 && !reply.headers.allow)
			wrong.push(`${name}: 405 without Allow`);
	}
	if (wrong.length > 0)
		return finding(
			checks.errorShapes,
			[`${wrong.length} of ${cases.length} wrong requests`, ...wrong, ...lost],
			"Have the proxy before the gate leave replies alone; without one, compare the versions of llamagate and Ollama.",
		);
	if (lost.length > 0)
		return unknown(
			checks.errorShapes,
			`${lost.length} of ${cases.length} wrong requests got no whole answer`,
			...lost,
		);
	return ok(
		checks.errorShapes,
		`${cases.length} wrong requests: ${[...new Set(cases.map(([, , status]) => status))].join(", ")}`,
	);
}

function readModels(body: string): string[] {
	const models = readObject(body)?.models;
	return Array.isArray(models)
		? models
				.map((model: unknown) => (isObject(model) ? model.name : undefined))
				.filter((name) => typeof name === "string")
		: [];
}
