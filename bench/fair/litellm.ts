import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { PinnedClient } from "../../test/real/clients/clients.ts";
import { folderOf, installClients } from "../../test/real/clients/install.ts";
import { freePort } from "../../test/support/freePort.ts";

/** LiteLLM's proxy: the newest one whose parts are all to be had, as PyPI has it. */
export const litellm: PinnedClient = {
	name: "litellm",
	registry: "pypi",
	package: "litellm",
	version: "1.108.5",
	checksum: "1b99ab7d3759588e6a943f5c7b6801e851b7f16be3a7fb137341e76546f91ded",
	extras: "proxy",
};

/** What it is asked with; a key for each user takes a database. */
export const masterKey = "sk-bench-0123456789abcdef";

const startTimeoutMs = 120_000;

/**
 * Starts it in front of an Ollama, installing it into the cache first where it
 * is not there.
 *
 * @param folder for its configuration and its log
 * @returns its URL, and its process once it answers
 * @throws an error of one line where it cannot be had or does not start
 */
export async function startLitellm(
	cache: string,
	folder: string,
	ollamaUrl: string,
	models: readonly string[],
	say: (line: string) => void,
): Promise<{ url: string; child: ChildProcess }> {
	await installClients(cache, say, [litellm]);
	const port = await freePort();
	const configFile = path.join(folder, "litellm.json");
	await writeFile(configFile, JSON.stringify(configure(ollamaUrl, models)));
	const logFile = path.join(folder, "litellm.log");
	const child = spawn(
		"setpriv",
		[
			...["--pdeathsig", "TERM"],
			path.join(folderOf(cache, litellm), "bin/python"),
			// The program in bin/ names the folder that it was made in.
			...["-c", "from litellm import run_server; run_server()"],
			...["--config", configFile, "--host", "127.0.0.1", "--port", `${port}`],
		],
		{
			stdio: ["ignore", "pipe", "pipe"],
			cwd: folder,
			env: {
				PATH: process.env.PATH,
				HOME: folder,
				// Prices of models, which it would ask GitHub for.
				LITELLM_LOCAL_MODEL_COST_MAP: "True",
				LITELLM_MODE: "PRODUCTION",
			},
		},
	);
	const log = createWriteStream(logFile);
	child.stdout.pipe(log, { end: false });
	child.stderr.pipe(log, { end: false });
	const url = `http://127.0.0.1:${port}`;
	const deadlineMs = performance.now() + startTimeoutMs;
	while (!(await answers(url))) {
		if (child.exitCode !== null || performance.now() > deadlineMs) {
			await stopLitellm(child);
			const [last = "nothing in its log"] = (await readFile(logFile, "utf8"))
				.trim()
				.split("\n")
				.slice(-1);
			throw new Error(`LiteLLM did not start: ${last}`);
		}
		await delay(100);
	}
	return { url, child };
}

/** Ends it, and waits for the end. */
export async function stopLitellm(child: ChildProcess): Promise<void> {
	if (child.exitCode !== null || child.signalCode !== null) return;
	const exited = once(child, "exit");
	child.kill("SIGTERM");
	const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
	await exited;
	clearTimeout(timer);
}

/** As its documentation has it for Ollama; a JSON file is YAML too. */
function configure(ollamaUrl: string, models: readonly string[]): object {
	return {
		model_list: models.map((name) => ({
			model_name: name,
			litellm_params: { model: `ollama_chat/${name}`, api_base: ollamaUrl },
		})),
		general_settings: { master_key: masterKey },
		litellm_settings: {
			telemetry: false,
			// Nobody is served twice, and nobody is cut off while he waits.
			num_retries: 0,
			request_timeout: 600,
		},
	};
}

async function answers(url: string): Promise<boolean> {
	return fetch(`${url}/health/liveliness`).then(
		({ ok }) => ok,
		() => false,
	);
}
