import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { freePort } from "../support/freePort.ts";
import { eventually } from "../support/gate.ts";
import { realParts } from "./parts.ts";

/** The file of a model in a store of Ollama's. */
async function fileOf(store: string, model: string): Promise<string> {
	const manifest = path.join(
		store,
		"manifests/registry.ollama.ai/library",
		model,
		"latest",
	);
	const { layers } = JSON.parse(await readFile(manifest, "utf8")) as {
		layers: { mediaType: string; digest: string }[];
	};
	const layer = layers.find(({ mediaType }) => mediaType.endsWith(".model"));
	if (layer === undefined) throw new Error(`${manifest} names no model`);
	return path.join(store, "blobs", layer.digest.replace(":", "-"));
}

/** llama.cpp's own server with the model `smol`, which it calls `llama`. It answers when this returns. */
export async function startLlamaServer(t: {
	teardown(action: () => unknown): unknown;
}): Promise<{ readonly url: string }> {
	const { folder, models } = realParts();
	const library = path.join(folder, "lib/ollama");
	const port = await freePort();
	const args = [
		...["--model", await fileOf(models, "smol"), "--alias", "llama"],
		...["--host", "127.0.0.1", "--port", String(port)],
		...["--ctx-size", "512", "--threads", "1", "--parallel", "1"],
	];
	const child = spawn(
		"setpriv",
		["--pdeathsig", "TERM", path.join(library, "llama-server"), ...args],
		{
			stdio: "ignore",
			env: { PATH: process.env.PATH, LD_LIBRARY_PATH: library },
		},
	);
	const exited = once(child, "close");
	t.teardown(async () => {
		child.kill("SIGKILL");
		await exited;
	});
	const url = `http://127.0.0.1:${port}`;
	await eventually(async () => {
		if (child.exitCode !== null) throw new Error("llama-server has ended");
		const reply = await fetch(`${url}/v1/models`).catch(() => undefined);
		return reply?.status === 200;
	});
	return { url };
}
