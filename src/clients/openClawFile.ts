import {
	constants,
	copyFile,
	mkdir,
	open,
	readFile,
	realpath,
	rename,
	stat,
	unlink,
} from "node:fs/promises";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
	applyEdits,
	findNodeAtLocation,
	getNodeValue,
	type JSONPath,
	modify,
	type Node,
	type ParseError,
	parse,
	parseTree,
	printParseErrorCode,
} from "jsonc-parser";
import { type Layout, layoutOf, withMember } from "../config/jsoncEdit.ts";
import { danglingLink } from "../config/linkTarget.ts";
import type { Connection } from "./client.ts";
import { openClaw, providerSettings } from "./openClaw.ts";

/** The file cannot be edited; it was left as it is. The message never quotes from it: it holds keys. */
export class UneditableFileError extends Error {
	readonly code = "LLAMAGATE_UNEDITABLE_FILE";
	constructor(file: string, why: string) {
		super(
			`${file} is left as it is: ${why}. Mend it, or merge by hand what "llamagate connect openclaw" prints`,
		);
	}
}

/** What became of the file. */
export interface Written {
	readonly file: string;
	readonly outcome: "created" | "changed" | "unchanged";
	/** The copy of what was there before. */
	readonly backup?: string;
	/** The model that agents go on using, where it is another than the new one. */
	readonly keptPrimary?: string;
}

/**
 * Merges the provider into OpenClaw's configuration. Everything else in the
 * file stays, comments and order included; agents keep the model they have
 * unless they have none. The file is replaced at once (rename(2)) and is its
 * owner's alone; what was there before lies beside it.
 *
 * @throws {UneditableFileError} for a file that cannot be parsed or edited
 */
export async function writeOpenClawFile(
	file: string,
	connection: Connection,
	now: Date,
): Promise<Written> {
	// A symbolic link stays one.
	const target = await realpath(file).catch((error: NodeJS.ErrnoException) => {
		if (error.code !== "ENOENT") throw unreadable(file, error);
		return undefined;
	});
	if (target === undefined) {
		const dangling = await danglingLink(file);
		if (dangling !== undefined) throw new UneditableFileError(file, dangling);
		await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
		const [snippet] = openClaw.render(connection).snippets;
		await replaceFile(file, `${snippet?.text}\n`);
		return { file, outcome: "created" };
	}
	const bytes = await readFile(target).catch((error: NodeJS.ErrnoException) => {
		throw unreadable(file, error);
	});
	const text = decode(bytes, file);
	const { text: merged, keptPrimary } = mergeProvider(text, connection, file);
	const kept = keptPrimary === undefined ? {} : { keptPrimary };
	if (merged === text) return { file, outcome: "unchanged", ...kept };
	const backup = await backUp(target, file, now);
	await replaceFile(target, merged);
	return { file, outcome: "changed", backup, ...kept };
}

function unreadable(file: string, { code, message }: NodeJS.ErrnoException) {
	return new UneditableFileError(
		file,
		`it cannot be read (${code ?? message})`,
	);
}

/** @throws {UneditableFileError} for bytes that would not be written again as they were */
function decode(bytes: Uint8Array, file: string): string {
	try {
		// By this name a byte order mark is kept.
		return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
			bytes,
		);
	} catch {
		throw new UneditableFileError(file, "it is not UTF-8");
	}
}

/**
 * The text with the provider in it.
 *
 * @throws {UneditableFileError}
 */
export function mergeProvider(
	text: string,
	connection: Connection,
	file: string,
): { text: string; keptPrimary?: string } {
	const bom = text.startsWith("\uFEFF") ? "\uFEFF" : "";
	const document = new Document(text.slice(bom.length), file);
	const provider: JSONPath = ["models", "providers", "ollama"];
	const { model } = connection;
	const { timeoutSeconds, ...settings } = providerSettings(connection);
	for (const [name, value] of Object.entries(settings))
		document.set([...provider, name], value);
	if (document.get([...provider, "timeoutSeconds"]) === undefined)
		document.set([...provider, "timeoutSeconds"], timeoutSeconds);

	const models = document.get([...provider, "models"]);
	const entry = { id: model, name: model };
	if (models === undefined) document.set([...provider, "models"], [entry]);
	else if (!Array.isArray(models))
		throw new UneditableFileError(
			file,
			`${provider.join(".")}.models is not a list`,
		);
	else if (!models.some((known) => isObject(known) && known.id === model))
		document.set([...provider, "models", models.length], entry);

	const reference = `ollama/${model}`;
	allow(document, reference);

	// Either an object or the primary model itself (docs.openclaw.ai/concepts/models).
	const chosen = document.get(["agents", "defaults", "model"]);
	const primary = isObject(chosen) ? chosen.primary : chosen;
	if (primary === undefined)
		document.set(["agents", "defaults", "model", "primary"], reference);
	const merged = { text: bom + document.text };
	return typeof primary === "string" && primary !== reference
		? { ...merged, keptPrimary: primary }
		: merged;
}

/**
 * Puts a model on the list of those that OpenClaw lets be chosen, where there is
 * one: since 2026.8.1 `modelPolicy.allow`, of which an empty one allows any
 * (docs.openclaw.ai/concepts/models). Before, and until `openclaw doctor --fix`
 * has moved it there, the names in `models`, where it has any.
 */
function allow(document: Document, reference: string): void {
	const defaults: JSONPath = ["agents", "defaults"];
	const policy = document.get([...defaults, "modelPolicy"]);
	if (isObject(policy)) {
		const { allow } = policy;
		if (isRestricting(allow, reference))
			document.set(
				[...defaults, "modelPolicy", "allow", allow.length],
				reference,
			);
		return;
	}
	const isMoved = document.get(["meta", "migrations", "modelPolicyAllowlist"]);
	const models = document.get([...defaults, "models"]);
	if (
		isMoved !== true &&
		isObject(models) &&
		isRestricting(Object.keys(models), reference)
	)
		document.set([...defaults, "models", reference], {});
}

/** Whether a list of what is allowed leaves a model out: it has entries, and neither the model nor `ollama/*` or a longer part of its name with a star. */
function isRestricting(list: unknown, reference: string): list is unknown[] {
	if (!Array.isArray(list) || list.length === 0) return false;
	return !list.some((entry) => {
		if (typeof entry !== "string") return false;
		const text = entry.trim();
		return (
			text === reference ||
			(text.endsWith("/*") && reference.startsWith(text.slice(0, -1)))
		);
	});
}

/** JSON with comments and trailing commas, edited in place: nothing is formatted anew. */
class Document {
	text: string;
	readonly #file: string;
	readonly #layout: Layout;

	constructor(text: string, file: string) {
		// An empty file says no more than none.
		this.text = text.trim() === "" ? "{}\n" : text;
		this.#file = file;
		this.#layout = layoutOf(text);
		if (this.#parse().type !== "object")
			throw new UneditableFileError(file, "it holds no object { … }");
	}

	#parse(): Node {
		const errors: ParseError[] = [];
		const tree = parseTree(this.text, errors, { allowTrailingComma: true });
		const [error] = errors;
		if (tree !== undefined && error === undefined) return tree;
		if (error === undefined)
			throw new UneditableFileError(this.#file, "it holds no JSON");
		const line = this.text.slice(0, error.offset).split("\n").length;
		throw new UneditableFileError(
			this.#file,
			`line ${line} is not JSON with comments (${printParseErrorCode(error.error)}); single quotes and names without quotes are more than this program can edit`,
		);
	}

	get(at: JSONPath): unknown {
		const node = findNodeAtLocation(this.#parse(), at);
		return node === undefined ? undefined : getNodeValue(node);
	}

	/** Sets a value, and makes the objects on the way to it. */
	set(at: JSONPath, value: unknown): void {
		if (isDeepStrictEqual(this.get(at), value)) return;
		const tree = this.#parse();
		if (findNodeAtLocation(tree, at) !== undefined)
			this.text = applyEdits(this.text, modify(this.text, at, value, {}));
		else {
			const depth = at.findLastIndex(
				(_, index) =>
					findNodeAtLocation(tree, at.slice(0, index)) !== undefined,
			);
			const parentPath = at.slice(0, depth);
			const parent = findNodeAtLocation(tree, parentPath);
			const name = at[depth];
			const kind = typeof name === "number" ? "array" : "object";
			if (parent?.type !== kind)
				throw new UneditableFileError(
					this.#file,
					`${parentPath.join(".")} is not ${kind === "array" ? "a list" : "an object { … }"}`,
				);
			const nested = at
				.slice(depth + 1)
				.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
			this.text = withMember(this.text, parent, name, nested, this.#layout);
		}
		// Where a name is there twice, a reader takes the last and the editor may have changed the first.
		const read: unknown = at.reduce<unknown>(
			(node, name) =>
				isObject(node) || Array.isArray(node)
					? (node as Record<string | number, unknown>)[name]
					: undefined,
			parse(this.text, [], { allowTrailingComma: true }),
		);
		if (!isDeepStrictEqual(read, value))
			throw new UneditableFileError(
				this.#file,
				`${at.join(".")} could not be set; a name may stand there twice`,
			);
	}
}

function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Copies the file to `NAME.bak-YYYYMMDDHHMMSS` beside it, with its mode. */
async function backUp(
	target: string,
	file: string,
	now: Date,
): Promise<string> {
	for (let time = now.getTime(); ; time += 1000) {
		const digits = new Date(time).toISOString().replace(/\D/g, "").slice(0, 14);
		const backup = `${file}.bak-${digits}`;
		try {
			// Copies the mode as well (libuv's uv_fs_copyfile).
			await copyFile(target, backup, constants.COPYFILE_EXCL);
			return backup;
		} catch (error) {
			if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
		}
	}
}

/** Writes beside the file, forces it to disk and renames it over the old one (rename(2) is atomic). */
async function replaceFile(target: string, text: string): Promise<void> {
	const temporary = path.join(
		path.dirname(target),
		`.${path.basename(target)}.new-${process.pid}`,
	);
	const handle = await open(temporary, "wx", 0o600);
	try {
		await handle.chmod(0o600);
		if (process.getuid?.() === 0) {
			// OpenClaw reads the file as its owner: root must not take it away.
			const owner = await stat(target).catch(() => stat(path.dirname(target)));
			await handle.chown(owner.uid, owner.gid);
		}
		await handle.writeFile(text);
		await handle.sync();
		await handle.close();
		await rename(temporary, target);
	} catch (error) {
		await handle.close().catch(() => undefined);
		await unlink(temporary).catch(() => undefined);
		throw error;
	}
}
