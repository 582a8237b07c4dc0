import { applyEdits, modify } from "jsonc-parser";
import { loadConfig, parseConfig } from "../../config/load.ts";
import { BadFileError } from "../../errors.ts";
import { loadKeys } from "../../keys/keyFile.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { isNewerThan } from "./advisories.ts";
import { nextValue, trimQuotes } from "./environment.ts";

export const parallelVariable = "OLLAMA_NUM_PARALLEL";
/** What `queue.parallel` takes at the most. */
export const mostParallel = 1_024;
/** The first version known to work on one request at a time where nothing else was said; older ones went by the memory that was free. */
const oneSince = "0.10.0";
/** How long an Ollama that runs is given to say its version. */
const startMs = 5_000;

/**
 * How many requests of a model an Ollama works on at once, by its
 * `OLLAMA_NUM_PARALLEL` (envconfig/config.go:Uint, server/sched.go:load).
 *
 * @param version what it says of itself; it decides what no value means
 * @returns `undefined` where that is not known
 */
export function readParallel(
	value: string | undefined,
	version: string | undefined,
): number | undefined {
	const text = trimQuotes(value ?? "");
	if (/^0*[1-9]\d{0,18}$/.test(text))
		return Math.min(Number(text), mostParallel);
	const isOlder =
		version === undefined ? undefined : isNewerThan(oneSince, version);
	return isOlder === false ? 1 : undefined;
}

/**
 * What `queue.parallel` is to be for this host's own Ollama.
 *
 * @param address its host and port, to ask it for its version
 * @param chosen what it is going to be told, where that is so
 * @returns `undefined` where it is not known
 */
export async function parallelToCome(
	address: string,
	chosen: number | undefined,
): Promise<number | undefined> {
	const unit = await lookUpUnit("ollama.service");
	if (!unit?.exists) return undefined;
	if (chosen !== undefined) return chosen;
	const next = await nextValue(unit, parallelVariable);
	if ("unreadable" in next) return undefined;
	let version: string | undefined;
	// It may just be starting, as after a run of setup that was cut off.
	if (unit.isActive)
		await becomesTrue(async () => {
			version = await versionAt(address);
			return version !== undefined;
		}, startMs);
	return readParallel(next.value, version);
}

async function versionAt(address: string): Promise<string | undefined> {
	try {
		const res = await fetch(`http://${address}/api/version`, {
			signal: AbortSignal.timeout(2_000),
		});
		const { version } = (await res.json()) as { version?: unknown };
		return typeof version === "string" ? version : undefined;
	} catch {
		// One that is stopped does not tell.
		return undefined;
	}
}

/** A configuration with another `queue.parallel`; the rest stays, comments too. */
export function withParallel(text: string, parallel: number): string {
	return applyEdits(
		text,
		modify(text, ["queue", "parallel"], parallel, {
			formattingOptions: {
				insertSpaces: !/^\t/m.test(text),
				tabSize: 2,
				eol: "\n",
			},
		}),
	);
}

/**
 * What becomes of a configuration, once Ollama works on so many requests at once.
 *
 * @param isSure whether a person has chosen that number, or the file is as setup has made it
 * @returns the text anew; `undefined` where nothing is to change, and `null` where it cannot be changed by a program
 */
export function followParallel(
	text: string,
	parallel: number,
	isSure: boolean,
): string | undefined | null {
	let now: number | "auto";
	try {
		now = parseConfig(text, "").queue.parallel;
	} catch (error) {
		if (error instanceof BadFileError) return undefined;
		throw error;
	}
	if (now === parallel || (now === "auto" && !isSure)) return undefined;
	const changed = withParallel(text, parallel);
	try {
		return parseConfig(changed, "").queue.parallel === parallel
			? changed
			: null;
	} catch (error) {
		if (error instanceof BadFileError) return null;
		throw error;
	}
}

/** How many keys let a client in; 0 where the files do not tell. */
export async function countKeys(configFile: string): Promise<number> {
	try {
		const { keysFile } = await loadConfig(configFile);
		const keys = await loadKeys(keysFile);
		return keys.filter(({ canary }) => canary !== true).length;
	} catch (error) {
		if (error instanceof BadFileError) return 0;
		throw error;
	}
}

/** What to tell the owner of an Ollama that several use, one request at a time. */
export function offerParallel(keys: number): string {
	return `${keys} keys share an Ollama that works on one request of a model at a time. It can work on four: "sudo llamagate setup --only ollama --parallel 4" sets ${parallelVariable}=4. That takes four times the memory for a model's context (-c 16384 in place of 4096), and a model that then no longer fits on the GPU becomes slower. Measured with a small model on two cores, 12 requests at once: 175 tokens a second in place of 94, and 1.7 s to the first token of another's in place of 3.9`;
}
