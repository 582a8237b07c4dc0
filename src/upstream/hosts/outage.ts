import type { HostState } from "./health.ts";

/** How long a host must have been away before its owner is told. */
const outageAfterMs = 30_000;

/**
 * When the owner hears of a host: once it has not been up for half a minute and is
 * down, and once it is up again. A restart of a few seconds is none, and what comes
 * and goes (`half-open`) is not back before it is `up`. Pure; it is told the time.
 */
export class Outage {
	#sinceMs: number | undefined;
	#isTold = false;

	/**
	 * @param nowMs any clock that only moves forward
	 * @returns what is to be told now
	 */
	look(
		state: HostState,
		nowMs: number,
	):
		| { readonly kind: "down" }
		| { readonly kind: "back"; readonly awayMs: number }
		| undefined {
		if (state === "up") {
			const awayMs = nowMs - (this.#sinceMs ?? nowMs);
			const wasTold = this.#isTold;
			this.#sinceMs = undefined;
			this.#isTold = false;
			return wasTold ? { kind: "back", awayMs } : undefined;
		}
		this.#sinceMs ??= nowMs;
		if (
			this.#isTold ||
			state !== "down" ||
			nowMs - this.#sinceMs < outageAfterMs
		)
			return undefined;
		this.#isTold = true;
		return { kind: "down" };
	}
}
