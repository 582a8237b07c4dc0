/**
 * Gives up for good what Node's permission model has allowed (`--permission`),
 * where Node was started with it and can (later ones of Node 24).
 */
export function giveUp(scope: "child" | "fs.write"): void {
	const { permission } = process as {
		permission?: { drop?: (scope: string) => void };
	};
	permission?.drop?.(scope);
}
