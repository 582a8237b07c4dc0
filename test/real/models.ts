import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

/** How SmolLM2 was taught to be spoken to; its own template has more than that. */
const template = `{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
`;
const stop = ["<|im_start|>", "<|im_end|>"];

/** The models go on with it for as long as they are let. */
export const counting = "1 2 3 4 5 6 7 8 9 10 11 12 13";

/** A blob as a manifest names it. */
interface Layer {
	readonly mediaType: string;
	readonly digest: string;
	readonly size: number;
}

/**
 * Fills a folder as OLLAMA_MODELS without a network: `smol`, which is the given
 * GGUF, and `other`, which is the same weights under another name, so that it
 * is another blob and takes a runner of its own
 * (Ollama's manifest/manifest.go and server/sched.go:schedulerModelKey).
 *
 * @param store the folder, which has to be there
 * @param gguf a file with SmolLM2
 * @param threads how many cores a model takes
 */
export async function writeModels(
	store: string,
	gguf: string,
	threads: number,
): Promise<void> {
	const weights = await readFile(gguf);
	await mkdir(path.join(store, "blobs"), { recursive: true });
	// Or what is said, and whether it has a letter in it, would be another each time.
	const parameters = { stop, num_thread: threads, seed: 1 };
	await writeModel(store, "smol", weights, parameters);
	await writeModel(store, "other", renamed(weights, "other"), parameters);
}

async function writeModel(
	store: string,
	name: string,
	weights: Buffer,
	parameters: object,
) {
	const put = async (mediaType: string, data: string | Buffer) => {
		const sha256 = createHash("sha256").update(data).digest("hex");
		await writeFile(path.join(store, "blobs", `sha256-${sha256}`), data);
		return {
			mediaType: `application/vnd.${mediaType}`,
			digest: `sha256:${sha256}`,
			size: Buffer.byteLength(data),
		} satisfies Layer;
	};
	const layers = [
		await put("ollama.image.model", weights),
		await put("ollama.image.template", template),
		await put("ollama.image.params", JSON.stringify(parameters)),
	];
	const config = await put(
		"docker.container.image.v1+json",
		JSON.stringify({
			model_format: "gguf",
			model_family: "llama",
			model_families: ["llama"],
			model_type: "134.52M",
			file_type: "Q4_1",
			architecture: "amd64",
			os: "linux",
			rootfs: {
				type: "layers",
				diff_ids: layers.map(({ digest }) => digest),
			},
		}),
	);
	const folder = path.join(store, "manifests/registry.ollama.ai/library", name);
	await mkdir(folder, { recursive: true });
	await writeFile(
		path.join(folder, "latest"),
		JSON.stringify({
			schemaVersion: 2,
			mediaType: "application/vnd.docker.distribution.manifest.v2+json",
			config,
			layers,
		}),
	);
}

/**
 * The same file with another `general.name`, filled up with blanks so that
 * nothing else moves. A GGUF has its strings behind their length in eight
 * bytes, and between a key and a string the type 8 in four.
 */
function renamed(gguf: Buffer, name: string): Buffer {
	const key = "general.name";
	const at = gguf.indexOf(key);
	const type = at + key.length;
	if (at === -1 || gguf.readUInt32LE(type) !== 8)
		throw new Error("the GGUF has no name to change");
	const length = Number(gguf.readBigUInt64LE(type + 4));
	const copy = Buffer.from(gguf);
	copy.write(name.padEnd(length).slice(0, length), type + 12, "latin1");
	return copy;
}
