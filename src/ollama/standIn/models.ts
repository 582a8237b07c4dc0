import { createHash } from "node:crypto";
import { formatModelName, parseModelName } from "../modelName.ts";
import { Failed } from "./failed.ts";

/** What a model can do, as `/api/show` calls it. */
export type Capability = "completion" | "tools" | "thinking" | "embedding";

/** A model that the stand-in has. */
export interface Model {
	readonly name: string;
	/** Its model file. Two names of one file share a runner. */
	readonly file: string;
	readonly capabilities: readonly Capability[];
}

/** A model as tests name it: by its name alone, or with what is special about it. */
export type ModelOption =
	| string
	| {
			readonly name: string;
			readonly file?: string;
			readonly capabilities?: readonly Capability[];
	  };

/** The models that are there, by every spelling of their names. */
export interface Models {
	list(): readonly Model[];
	/**
	 * The model that a request names.
	 *
	 * @throws Failed as the call does where there is none
	 */
	find(asked: string, words: Words): Model;
	/**
	 * What the other APIs look at before anything else.
	 *
	 * @throws Cloud for a name that only ollama.com can serve
	 */
	refuseCloud(asked: string): void;
	add(name: string, like: Model): void;
	remove(name: string): void;
}

/** How a call speaks of a model that it was not given, or that is not there. */
export interface Words {
	/** For a name of nothing. */
	readonly none: readonly [status: number, message: string];
	missing(asked: string): string;
	/** For what cannot be a name; "invalid model name" if it is left out. */
	invalid?(asked: string): string;
	/** The call never asks ollama.com. */
	readonly isHere?: true;
}

/** A name that only ollama.com can serve. */
export class Cloud extends Error {}

/** Reads names as Ollama does, and refuses what it refuses. */
export function createModels(options: readonly ModelOption[]): Models {
	const models = new Map<string, Model>();
	for (const option of options) {
		const { name, file, capabilities } =
			typeof option === "string"
				? { name: option, file: undefined, capabilities: undefined }
				: option;
		const canonical = keyOf(name);
		models.set(canonical, {
			name,
			file: file ?? createHash("sha256").update(canonical).digest("hex"),
			capabilities:
				capabilities ??
				(/embed|minilm/i.test(name) ? ["embedding"] : ["completion", "tools"]),
		});
	}
	return {
		list: () => [...models.values()],
		find(asked, words) {
			const { none, missing, invalid = () => "invalid model name" } = words;
			const text = trim(asked);
			if (text === "") throw new Failed(...none);
			if (/:(?:cloud|local|[^:/]+-cloud):(?:cloud|local)$/.test(text))
				throw new Failed(
					400,
					`use either :local or :cloud, not both: ${JSON.stringify(text)}`,
				);
			const own = models.get(asked);
			if (own !== undefined) return own;
			const name = /\ufeff/.test(text) ? undefined : parseModelName(text);
			if (name === undefined) throw new Failed(400, invalid(asked));
			const model = models.get(formatModelName(name));
			// ollama.com serves those that it is said to have.
			if (model === undefined && name.cloud && words.isHere !== true)
				throw new Cloud(asked);
			if (model === undefined) throw new Failed(404, missing(asked));
			return model;
		},
		refuseCloud(asked) {
			const name = parseModelName(trim(asked));
			if (name?.cloud === true && !models.has(formatModelName(name)))
				throw new Cloud(asked);
		},
		add: (name, { file, capabilities }) =>
			models.set(keyOf(name), {
				name: displayName(name),
				file,
				capabilities,
			}),
		remove: (name) => models.delete(keyOf(name)),
	};
}

/** The one spelling of a name. One that is none, which a server may have from elsewhere, stays as it is. */
function keyOf(name: string): string {
	const parsed = parseModelName(name);
	return parsed === undefined ? name : formatModelName(parsed);
}

/** strings.TrimSpace: with U+0085, without the byte order mark. */
function trim(text: string): string {
	return text.replace(/^(?!\ufeff)[\s\u0085]+|(?!\ufeff)[\s\u0085]+$/g, "");
}

/** Whether a name can be one. */
export function isModelName(text: string): boolean {
	return parseModelName(text) !== undefined;
}

/** A name with its tag, as Ollama shows it. */
export function displayName(text: string): string {
	const name = parseModelName(text);
	return name === undefined ? text : formatModelName({ ...name, cloud: false });
}

/** A model's entry in `/api/tags`. */
export function describeModel({ name, file, capabilities }: Model) {
	return {
		name,
		model: name,
		modified_at: "2026-08-21T09:00:00Z",
		size: 5_225_388_164,
		digest: file,
		details: {
			...modelDetails,
			context_length: longestContext,
			embedding_length: 576,
		},
		capabilities,
	};
}

/** What all of them are. */
export const modelDetails = {
	parent_model: "",
	format: "gguf",
	family: "qwen3",
	families: ["qwen3"],
	parameter_size: "8.2B",
	quantization_level: "Q4_K_M",
};

/** The most that a model of these is trained for, and what it gets unasked, in tokens. */
export const longestContext = 8192;
export const defaultContext = 4096;

/** A model's entry in `/v1/models`. */
export function openaiModel(id: string) {
	return { id, object: "model", created: 1_755_766_800, owned_by: "library" };
}

/** How each call speaks of a model that is not there. */
export const quoted: Words = {
	none: [404, "model '' not found"],
	missing: (asked) => `model '${asked}' not found`,
};
/** The same for a call that asks for a name first. */
export const required: Words = { ...quoted, none: [400, "model is required"] };
const pullFirst = (words: Words): Words => ({
	...words,
	missing: (asked) =>
		`model ${JSON.stringify(asked)} not found, try pulling it first`,
});
/** By path; `required` for the others. */
export const wordsOf: Readonly<Record<string, Words>> = {
	"/api/generate": quoted,
	"/v1/completions": quoted,
	"/api/embed": pullFirst(quoted),
	"/v1/embeddings": pullFirst(quoted),
	"/api/embeddings": pullFirst(required),
};
