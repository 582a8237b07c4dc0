/** Lets the clock of what runs in this process jump, by so many milliseconds with each call. */
export function jumpingClock(t: {
	teardown(action: () => unknown): unknown;
}): (ms: number) => void {
	const now = performance.now.bind(performance);
	let aheadMs = 0;
	performance.now = () => now() + aheadMs;
	t.teardown(() => {
		performance.now = now;
	});
	return (ms) => {
		aheadMs += ms;
	};
}
