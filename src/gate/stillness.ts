/** After more sweeps than that without a byte, of 250 ms each, a reply is not heard any more. */
const heardSweeps = 12;

/** How long nothing of a request and its reply has moved: counted in sweeps, so that a byte costs no timer. */
export class Stillness {
	#sweeps = 0;

	/** Something has moved. */
	end(): void {
		this.#sweeps = 0;
	}

	/** Something has moved in the last seconds. */
	get isShort(): boolean {
		return this.#sweeps <= heardSweeps;
	}

	/** Counts one more interval. @returns how long nothing has moved, in milliseconds, or less */
	goesOn(intervalMs: number): number {
		this.#sweeps += 1;
		// The first may have come right behind the last byte: so long at least, and no limit ends early.
		return (this.#sweeps - 1) * intervalMs;
	}
}
