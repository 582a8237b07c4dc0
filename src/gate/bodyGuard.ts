import type { Credential, Key } from "../keys/keyring.ts";
import type { Found } from "../ollama/bodyFinds.ts";
import { BodyScan, type ScanResult } from "../ollama/bodyScan.ts";
import { FormScan } from "../ollama/formScan.ts";
import {
	checkOptions,
	listsOfPrompts,
	optionNames,
	optionsBelowV1,
	topOptions,
} from "../ollama/options.ts";
import { multipartRoute, type Route } from "../ollama/routes.ts";
import { type Watched, WatchList } from "../ollama/watchedNames.ts";
import { badBody, checkName, checkNames, namingFields } from "./modelPolicy.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";
import type { Uploads } from "./uploads.ts";

/**
 * The part of step 5 that needs the body: the models that it names, the options
 * that it sets, the files that it makes a model of, and the tools that would
 * spend the owner's account. What no rule of the key's looks at never comes here.
 */

/** Reads a body as it arrives, or all of it at its end, and judges it then. */
export interface BodyGuard {
	/** All of a body's pieces, or none; of a packed one what it becomes. Returns false once it is known to be refused. */
	push(piece: Buffer): boolean;
	/** Judges the body, which is whole now. */
	finish(body: Buffer): Refusal | undefined;
}

/** What makes Ollama search or read the web at ollama.com (middleware/anthropic.go, openai.go). */
const toolTypes = ["web_search", "web_fetch"];

const byRules: Watched = {
	fields: [...namingFields, ...topOptions],
	options: optionNames.filter((name) => !topOptions.has(name)),
};
/** Below /v1 options have other names, too. */
const byRulesBelowV1: Watched = {
	...byRules,
	fields: [...byRules.fields, ...optionsBelowV1],
};

/** What to look for, and a scan for bodies that are there whole: one is judged before the next is read. */
class Lookout {
	readonly list: WatchList;
	readonly wholeScan: BodyScan;

	constructor(watched: Watched) {
		this.list = new WatchList(watched);
		this.wholeScan = new BodyScan(this.list);
	}
}

const watched = {
	rules: new Lookout(byRules),
	rulesAndTools: new Lookout({ ...byRules, toolTypes }),
	rulesBelowV1: new Lookout(byRulesBelowV1),
	rulesOfCompletions: new Lookout({
		...byRulesBelowV1,
		containers: listsOfPrompts,
	}),
	rulesAndToolsBelowV1: new Lookout({ ...byRulesBelowV1, toolTypes }),
	tools: new Lookout({ fields: [], toolTypes }),
	create: new Lookout({
		...byRules,
		fields: [...byRules.fields, "remote_host"],
		maps: ["files", "adapters", "draft_files"],
	}),
};

const createRoute = "/api/create";
const completionsRoute = "/v1/completions";

/** The guard of a request's body, or `undefined` where no rule looks at it. */
export function guardBody(
	credential: Credential,
	route: Route,
	head: Head,
	uploads: Uploads,
): BodyGuard | undefined {
	const { key } = credential;
	if (route.body === "none" || route.body === "blob") return undefined;
	if (route.scope === "account") return undefined;
	if (route.path === multipartRoute)
		return guardMultipart(key, head.contentType[0]);
	const lookout = watchedOf(key, route);
	if (lookout === undefined) return undefined;
	const { list, wholeScan } = lookout;
	const judge = (result: ScanResult) =>
		result.kind === "unclear"
			? badBody(result.message)
			: judgeFound(credential, result, uploads);
	let scan: BodyScan | undefined;
	return {
		push(piece) {
			scan ??= new BodyScan(list);
			return scan.push(piece);
		},
		finish: (body) => judge(scan?.finish() ?? wholeScan.readWhole(body)),
	};
}

/** What of a body matters for this key, if anything does. */
function watchedOf(key: Key, route: Route): Lookout | undefined {
	const spends = route.searches === true && !key.scopes.has("account");
	if (key.models === undefined && key.options === undefined)
		return spends ? watched.tools : undefined;
	if (route.path === createRoute) return watched.create;
	if (key.options !== undefined && route.path === completionsRoute)
		return watched.rulesOfCompletions;
	if (key.options !== undefined && route.path.startsWith("/v1/"))
		return spends ? watched.rulesAndToolsBelowV1 : watched.rulesBelowV1;
	return spends ? watched.rulesAndTools : watched.rules;
}

function judgeFound(
	{ key, id }: Credential,
	{ fields, mapped, toolType }: Found,
	uploads: Uploads,
): Refusal | undefined {
	if (toolType !== undefined) return searchesTheWeb(key, toolType);
	return (
		checkNames(key, fields) ??
		(key.models === undefined
			? undefined
			: uploads.checkFiles(key, id, mapped)) ??
		checkOptions(key.name, key.options, fields)
	);
}

function searchesTheWeb(key: Key, toolType: string): Refusal {
	return {
		status: 403,
		reason: "web_tool",
		message: `a tool of type "${toolType}" makes Ollama search the web on its owner's account, which needs the scope "account"; the key "${key.name}" has ${[...key.scopes].join(", ")}. Turn the client's web search off`,
	};
}

/** A form has one field `model`, and it must be plain to see. */
function guardMultipart(
	key: Key,
	contentType: string | undefined,
): BodyGuard | undefined {
	if (key.models === undefined) return undefined;
	const scan = new FormScan(contentType);
	let isRead = false;
	return {
		push(piece) {
			isRead = true;
			return scan.push(piece);
		},
		finish(body) {
			if (!isRead) scan.push(body);
			const form = scan.finish();
			return form.kind === "unclear"
				? badBody(form.message)
				: checkName(key, form.value, "the form");
		},
	};
}
