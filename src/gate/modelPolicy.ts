import type { Key } from "../keys/keyring.ts";
import { BodyScan, type Scalar } from "../ollama/bodyScan.ts";
import { FormScan } from "../ollama/formScan.ts";
import {
	type ModelName,
	type ModelPattern,
	parseModelName,
} from "../ollama/modelName.ts";
import { checkOptions, optionNames } from "../ollama/options.ts";
import type { Route } from "../ollama/routes.ts";
import { WatchList } from "../ollama/watchedNames.ts";
import type { Refusal } from "./refusal.ts";

/**
 * The part of step 5 that needs the body: which models a key may name, and
 * which options it may set. A key without such rules never comes here.
 */

/** Reads a body as it arrives and judges it at its end. */
export interface BodyGuard {
	push(chunk: Buffer): void;
	finish(): Refusal | undefined;
}

/** Every field by which some call of Ollama's names a model. */
const namingFields = ["model", "name", "source", "destination", "from"];
const watched = new WatchList({
	fields: [...namingFields, "keep_alive"],
	options: optionNames.filter((name) => name !== "keep_alive"),
});

/** Reads `Content-Type` of a multipart body for its boundary; everything else is JSON to Ollama. */
const multipartRoute = "/v1/audio/transcriptions";

/** The guard of a request's body, or `undefined` where no rule looks at it. */
export function guardBody(
	key: Key,
	route: Route,
	contentType: string | undefined,
): BodyGuard | undefined {
	if (route.body === "none" || route.body === "blob") return undefined;
	if (key.models === undefined && key.options === undefined) return undefined;
	if (route.scope === "account") return undefined;
	if (route.path === multipartRoute) return guardMultipart(key, contentType);
	const scan = new BodyScan(watched);
	return {
		push: (chunk) => {
			scan.push(chunk);
		},
		finish: () => {
			const result = scan.finish();
			if (result.kind === "unclear") return badBody(result.message);
			return (
				checkNames(key, result.fields) ??
				checkOptions(key.name, key.options, result.fields)
			);
		},
	};
}

/** Whether the model in a path (`/v1/models/:model`) is one of the key's. */
export function checkModelInPath(
	key: Key,
	route: Route,
	path: string,
): Refusal | undefined {
	if (key.models === undefined || !route.path.endsWith("/:model"))
		return undefined;
	return checkName(key, path.slice(path.lastIndexOf("/") + 1));
}

function checkNames(
	key: Key,
	fields: ReadonlyMap<string, Scalar | undefined>,
): Refusal | undefined {
	if (key.models === undefined) return undefined;
	let named = false;
	for (const field of namingFields) {
		if (!fields.has(field)) continue;
		const value = fields.get(field);
		// Go reads null as an empty string, and Ollama then looks at the next field.
		if (value === "" || value === null) continue;
		if (typeof value !== "string")
			return badBody(`the body's "${field}" is no string`);
		named = true;
		const refusal = checkName(key, value);
		if (refusal !== undefined) return refusal;
	}
	return named ? undefined : badBody("the body names no model");
}

function checkName(key: Key, text: string): Refusal | undefined {
	const name = parseModelName(text);
	if (name === undefined)
		return badBody("the body's model is no name that Ollama would take");
	if (isAllowed(key.models ?? [], name)) return undefined;
	return {
		status: 403,
		reason: "model",
		message: `the key "${key.name}" may not use this model${name.cloud ? "; a cloud model needs a pattern that ends in cloud" : ""}`,
	};
}

function isAllowed(
	patterns: readonly ModelPattern[],
	name: ModelName,
): boolean {
	return patterns.some((matches) => matches(name));
}

function badBody(message: string): Refusal {
	return { status: 400, reason: "unclear_body", message };
}

/** A form has one field `model`, and it must be plain to see. */
function guardMultipart(
	key: Key,
	contentType: string | undefined,
): BodyGuard | undefined {
	if (key.models === undefined) return undefined;
	const scan = new FormScan(contentType);
	return {
		push: (chunk) => {
			scan.push(chunk);
		},
		finish() {
			const form = scan.finish();
			return form.kind === "unclear"
				? badBody(form.message)
				: checkName(key, form.value);
		},
	};
}

/** Takes out of a list of models what the key may not use. */
export type ReplyFilter = (body: Buffer) => Buffer | undefined;

const lists: Readonly<Record<string, readonly [string, string]>> = {
	"GET /api/tags": ["models", "name"],
	"GET /api/ps": ["models", "name"],
	"GET /v1/models": ["data", "id"],
};

/** The filter of a reply that lists models, or `undefined` where the key sees them all. */
export function filterReply(key: Key, route: Route): ReplyFilter | undefined {
	const [listName, idName] = lists[route.id] ?? [];
	const { models } = key;
	if (models === undefined || listName === undefined || idName === undefined)
		return undefined;
	return (body) => {
		try {
			const reply = JSON.parse(body.toString("utf8")) as Record<
				string,
				unknown
			>;
			const list = reply[listName] ?? [];
			if (!Array.isArray(list)) return undefined;
			reply[listName] = (list as Record<string, unknown>[]).filter((entry) => {
				const name = parseModelName(String(entry[idName]));
				return name !== undefined && isAllowed(models, name);
			});
			return Buffer.from(JSON.stringify(reply));
		} catch {
			// What cannot be read cannot be shown to be allowed.
			return undefined;
		}
	};
}
