import type { ServerResponse } from "node:http";
import { type Asked, bodyOf, type Host, json } from "./call.ts";
import { Failed } from "./failed.ts";
import { pause } from "./generation.ts";
import { displayName, isModelName, type Model } from "./models.ts";

/**
 * The calls that change which models there are.
 *
 * @returns whether this is one of them
 */
export async function manage(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<boolean> {
	switch (asked.path) {
		case "/api/copy":
			copy(host, asked, res);
			return true;
		case "/api/delete":
			remove(host, asked, res);
			return true;
		case "/api/pull":
			await pull(host, asked, res);
			return true;
		case "/api/push":
			await push(host, asked, res);
			return true;
		case "/api/create":
			await create(host, asked, res);
			return true;
	}
	if (!asked.path.startsWith("/api/blobs/")) return false;
	const digest = digestIn(asked.path);
	if (asked.method === "POST") res.writeHead(201).end();
	else if (!isDigest(digest)) throw new Failed(400, "invalid digest format");
	else if (host.blobs.has(digest)) res.writeHead(200).end();
	else throw new Failed(404, `blob ${JSON.stringify(digest)} not found`);
	return true;
}

/** The digest that a path names, in the form that it has in a manifest. */
export function digestIn(path: string): string {
	return path.slice(path.lastIndexOf("/") + 1).replace("-", ":");
}

/** Whether a model file can be called that. */
export function isDigest(text: string): boolean {
	return /^sha256:[0-9a-f]{64}$/.test(text);
}

function copy({ models }: Host, asked: Asked, res: ServerResponse): void {
	const body = bodyOf(asked);
	const [source, destination] = [body.text("source"), body.text("destination")];
	if (!isModelName(source))
		throw new Failed(400, `source ${JSON.stringify(source)} is invalid`);
	if (!isModelName(destination))
		throw new Failed(
			400,
			`destination ${JSON.stringify(destination)} is invalid`,
		);
	const model = models.find(source, {
		none: [400, 'source "" is invalid'],
		missing: (name) => `model ${JSON.stringify(name)} not found`,
		isHere: true,
	});
	models.add(destination, model);
	res.writeHead(200).end();
}

function remove({ models }: Host, asked: Asked, res: ServerResponse): void {
	const body = bodyOf(asked);
	const name = body.text("model") || body.text("name");
	models.find(name, {
		none: [400, "model is required"],
		missing: () => `model '${name}' not found`,
		invalid: () => `name ${JSON.stringify(name)} is invalid`,
		isHere: true,
	});
	models.remove(name);
	res.writeHead(200).end();
}

async function pull(
	{ pace, models, isOffline }: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const body = bodyOf(asked);
	const name = body.text("model") || body.text("name");
	if (!isModelName(name)) throw new Failed(400, "invalid model name");
	if (isOffline)
		return fail(
			res,
			["pulling manifest"],
			`pull model manifest: Get "https://${displayName(name)}": dial tcp: connect: connection refused`,
			body.get("stream") !== false,
		);
	await progress(
		res,
		["pulling manifest", "verifying sha256 digest", "success"],
		pace.tokenIntervalMs,
		body.get("stream") !== false,
	);
	models.add(name, newModel(name));
}

async function push(
	{ pace, models }: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const body = bodyOf(asked);
	const name = body.text("model") || body.text("name");
	const streams = body.get("stream") !== false;
	if (name === "") throw new Failed(400, "model is required");
	const isThere = models
		.list()
		.some((model) => displayName(model.name) === displayName(name));
	if (isThere)
		return progress(
			res,
			["retrieving manifest", "pushing manifest", "success"],
			pace.tokenIntervalMs,
			streams,
		);
	const path = `/var/lib/ollama/models/manifests/registry.ollama.ai/library/${displayName(name).replace(":", "/")}`;
	fail(
		res,
		["retrieving manifest", "couldn't retrieve manifest"],
		`open ${path}: no such file or directory`,
		streams,
	);
}

/** What fails at work is told in its stream, whose status is out already. */
function fail(
	res: ServerResponse,
	lines: readonly string[],
	error: string,
	streams: boolean,
): void {
	if (!streams) throw new Failed(500, error);
	res.writeHead(200, { "content-type": "application/x-ndjson" });
	for (const line of [...lines.map((status) => ({ status })), { error }])
		res.write(`${JSON.stringify(line)}\n`);
	res.end();
}

async function create(
	{ pace, models }: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const body = bodyOf(asked);
	const name = body.text("model") || body.text("name");
	if (!isModelName(name)) throw new Failed(400, "invalid model name");
	const from = body.text("from");
	if (from === "" && body.get("files") === undefined)
		throw new Failed(400, "neither 'from' or 'files' was specified");
	if (from !== "" && !isModelName(from))
		throw new Failed(400, "invalid model name");
	await progress(
		res,
		["creating new layer sha256:0", "writing manifest", "success"],
		pace.tokenIntervalMs,
		body.get("stream") !== false,
	);
	models.add(
		name,
		models
			.list()
			.find((model) => displayName(model.name) === displayName(from)) ??
			newModel(name),
	);
}

function newModel(name: string): Model {
	return { name, file: displayName(name), capabilities: ["completion"] };
}

async function progress(
	res: ServerResponse,
	lines: readonly string[],
	intervalMs: number,
	streams: boolean,
): Promise<void> {
	if (!streams) {
		await pause(intervalMs * lines.length);
		return json(res, 200, { status: lines.at(-1) });
	}
	res.writeHead(200, { "content-type": "application/x-ndjson" });
	for (const status of lines) {
		res.write(`${JSON.stringify({ status })}\n`);
		await pause(intervalMs);
	}
	res.end();
}
