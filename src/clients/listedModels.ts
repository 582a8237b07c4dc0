import { isModelName } from "./client.ts";

/**
 * The names in a reply to `GET /api/tags` that may stand in any text to paste;
 * `undefined` if it is no such reply. A server can list what it likes, so a name
 * that fails `isModelName` is left out.
 */
export function listedModels(reply: unknown): string[] | undefined {
	const models = (reply as { models?: unknown } | null | undefined)?.models;
	if (!Array.isArray(models)) return undefined;
	return models
		.map((model: { name?: unknown } | null | undefined) => model?.name)
		.filter(
			(name) => typeof name === "string" && isModelName(name),
		) as string[];
}
