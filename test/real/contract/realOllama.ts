import { readdir, readFile } from "node:fs/promises";
import type { Test } from "tap";
import { runContract, subjects } from "../../contract/contract.ts";
import { movedBetween } from "../../contract/moved.ts";
import type {
	Server,
	Settings,
	Subject,
	Teardown,
} from "../../contract/server.ts";
import { startOllama } from "../ollama.ts";
import { type OllamaVersion, ollamaVersions } from "../parts.ts";
import { record } from "../record.ts";

/** Runs the contract on a real Ollama, and records what moved since the version before. */
export async function keepsContract(
	t: Test,
	version: OllamaVersion,
): Promise<void> {
	await runContract(t, realOllama(version));
	if (!t.passing()) return;
	const before = ollamaVersions[ollamaVersions.indexOf(version) - 1];
	record("ollama", "Ollama, by itself", {
		version,
		ran: [`the contract that the stand-in keeps too: ${subjects.join(", ")}`],
		differs: before === undefined ? [] : movedBetween(before, version),
	});
}

function realOllama(version: OllamaVersion): Subject {
	return {
		version,
		async start(t: Teardown, settings: Settings): Promise<Server> {
			const ollama = await startOllama(t, {
				version,
				env: {
					// Whatever is beyond this host is refused at once, and not asked.
					HTTPS_PROXY: "http://127.0.0.1:9",
					...asEnvironment(settings),
				},
			});
			return {
				port: ollama.port,
				async killRunner() {
					for (const pid of await childrenOf(ollama.pid))
						process.kill(pid, "SIGKILL");
				},
				terminate: () => ollama.stop("SIGTERM"),
			};
		},
	};
}

function asEnvironment(settings: Settings): Record<string, string> {
	const { parallel, maxLoadedModels, maxQueue, noCloud } = settings;
	return Object.fromEntries(
		Object.entries({
			OLLAMA_NUM_PARALLEL: parallel,
			OLLAMA_MAX_LOADED_MODELS: maxLoadedModels,
			OLLAMA_MAX_QUEUE: maxQueue,
			OLLAMA_NO_CLOUD: noCloud === true ? 1 : undefined,
		}).flatMap(([name, value]) =>
			value === undefined ? [] : [[name, String(value)]],
		),
	);
}

/** The processes that a process has started. */
async function childrenOf(parent: number): Promise<number[]> {
	const children: number[] = [];
	for (const name of await readdir("/proc")) {
		if (!/^\d+$/.test(name)) continue;
		// A process may end while it is looked at.
		const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => "");
		const [, ppid] = /^\d+ \(.*\) \S (\d+) /s.exec(stat) ?? [];
		if (Number(ppid) === parent) children.push(Number(name));
	}
	return children;
}
