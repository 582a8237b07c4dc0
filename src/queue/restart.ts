/** An Ollama that restarts is back after so long: its unit waits 3 s. */
const restartMs = 5_000;
const pollMs = 200;

/**
 * Waits for an Ollama that may be away.
 *
 * @param isUp asked again and again
 * @param away called once if it is away
 * @returns whether it has come back within five seconds
 */
export async function comesBack(
	isUp: () => Promise<boolean>,
	away: () => void,
): Promise<boolean> {
	if (await isUp()) return true;
	away();
	const endMs = performance.now() + restartMs;
	while (performance.now() < endMs) {
		await new Promise((resolve) => setTimeout(resolve, pollMs));
		if (await isUp()) return true;
	}
	return false;
}
