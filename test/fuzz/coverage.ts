import { type Profiler, Session } from "node:inspector";

/**
 * Which blocks of some source files have run, by V8's own count of them. Only
 * functions that were compiled after its start are counted block by block, so
 * it has to be started before the files are imported.
 */
export class Coverage {
	readonly #session = new Session();

	constructor() {
		this.#session.connect();
		this.#session.post("Profiler.enable");
		this.#session.post("Profiler.startPreciseCoverage", {
			callCount: true,
			detailed: true,
		});
	}

	/**
	 * The blocks that have run since the last call, each with how often in powers
	 * of four: a loop that goes round more often is something new too.
	 *
	 * @param files ends of the paths of what is looked at
	 */
	take(files: readonly string[]): Set<string> {
		let scripts: Profiler.ScriptCoverage[] = [];
		this.#session.post("Profiler.takePreciseCoverage", (error, { result }) => {
			if (error !== null) throw error;
			scripts = result;
		});
		const blocks = new Set<string>();
		for (const { url, functions } of scripts) {
			const file = files.find((name) => url.endsWith(name));
			if (file === undefined) continue;
			for (const { ranges } of functions)
				for (const { startOffset, endOffset, count } of ranges)
					if (count > 0)
						blocks.add(
							`${file}:${startOffset}-${endOffset}:${Math.floor(Math.log2(count) / 2)}`,
						);
		}
		return blocks;
	}
}
