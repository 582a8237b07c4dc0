import type { Key } from "../keys/keyring.ts";
import type { Fields } from "../ollama/bodyFinds.ts";
import {
	type ModelName,
	type ModelPattern,
	parseModelName,
	spellPattern,
} from "../ollama/modelName.ts";
import type { Route } from "../ollama/routes.ts";
import { excerpt } from "../visible.ts";
import type { Refusal } from "./refusal.ts";

/** The part of step 5 that says which models a key may name, and see. */

/** Every field by which some call of Ollama's names a model. */
export const namingFields = ["model", "name", "source", "destination", "from"];

/** Whether the model in a path (`/v1/models/:model`) is one of the key's. */
export function checkModelInPath(
	key: Key,
	route: Route,
	path: string,
): Refusal | undefined {
	if (key.models === undefined || !route.path.endsWith("/:model"))
		return undefined;
	return checkName(key, path.slice(path.lastIndexOf("/") + 1), "the path");
}

/** Whether every model that a body names is one of the key's. */
export function checkNames(key: Key, fields: Fields): Refusal | undefined {
	if (key.models === undefined) return undefined;
	// Ollama makes a model that runs there, whatever its name (server/create.go).
	const isRemote = isSet(fields, "remote_host");
	let named = false;
	for (const field of namingFields) {
		if (!isSet(fields, field)) continue;
		const value = fields.get(field);
		if (typeof value !== "string")
			return badBody(`the body's "${field}" is not a string`);
		named = true;
		const refusal = checkName(
			key,
			value,
			field === "model" ? "the body" : `the body's "${field}"`,
			isRemote && field === "from",
		);
		if (refusal !== undefined) return refusal;
	}
	return named ? undefined : badBody("the body names no model");
}

/** Go reads null as an empty string, and Ollama then looks at the next field. */
function isSet(fields: Fields, field: string): boolean {
	const value = fields.get(field);
	return fields.has(field) && value !== "" && value !== null;
}

/**
 * Whether a model is one of the key's.
 *
 * @param where it is named, for the message: `the body`
 * @param isRemote whether it runs elsewhere although its name does not say so
 */
export function checkName(
	key: Key,
	text: string,
	where: string,
	isRemote = false,
): Refusal | undefined {
	const parsed = parseModelName(text);
	if (parsed === undefined)
		return badBody(
			`the model in ${where} is not a name that Ollama would take`,
		);
	const name = isRemote ? { ...parsed, cloud: true } : parsed;
	if (isAllowed(key.models ?? [], name)) return undefined;
	return {
		status: 403,
		reason: "model",
		message: `the key "${key.name}" may not use the model ${JSON.stringify(excerpt(text))}${key.narrowed === undefined ? `; it may use ${listed(key.modelNames)}` : ` ${key.narrowed}`}${name.cloud ? "; a cloud model needs a pattern that ends in cloud" : ""}`,
	};
}

const maxListed = 10;

function listed(names: readonly string[]): string {
	const rest = names.length - maxListed;
	return `${names.slice(0, maxListed).map(spellPattern).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}

function isAllowed(
	patterns: readonly ModelPattern[],
	name: ModelName,
): boolean {
	return patterns.some((matches) => matches(name));
}

/** A body, or a path, that cannot be judged. */
export function badBody(message: string): Refusal {
	return { status: 400, reason: "unclear_body", message };
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
			// llama.cpp's server lists its models a second time, in Ollama's form.
			for (const [member, value] of Object.entries(reply))
				if (typeof value === "object") delete reply[member];
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
