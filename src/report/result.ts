/** How bad it is if a check finds something: `critical` lets others in, `warn` is worth a look and no more. */
export const severities = ["critical", "high", "warn", "info"] as const;
export type Severity = (typeof severities)[number];

/** The layers that a request from outside meets, in their order, and what is beside them. */
export const layers = [
	"internet",
	"firewall",
	"tailscale",
	"gate",
	"ollama",
	"open-webui",
	"host",
] as const;
export type Layer = (typeof layers)[number];

/** A question that is asked of a host, in words that do not depend on the answer. */
export interface Check {
	/** Stable, for programs and for `--explain`: `ollama.listening`. */
	readonly id: string;
	readonly group: string;
	/** Where it is on the picture. */
	readonly layer: Layer;
	/** What is as it should be, as a short statement: "Ollama listens on loopback only". */
	readonly title: string;
	/** Of what it finds. */
	readonly severity: Severity;
	/** One sentence: why it matters. */
	readonly why: string;
}

/** What became of a check. */
export interface Result extends Check {
	/**
	 * `ok`: seen to be so. `finding`: seen not to be so. `absent`: what it asks about
	 * is not here. `unknown`: it could not be seen, which is never a pass.
	 */
	readonly state: "ok" | "finding" | "absent" | "unknown";
	/** What was seen, a line each; for `unknown`, why nothing was. */
	readonly evidence: readonly string[];
	/**
	 * The command that mends a finding, or what to do where no command can; for
	 * `unknown`, how to find out.
	 */
	readonly fix?: string;
}

/** A finding as a sentence of its own: "The key short has expired". What was seen first says it, if anything was. */
export function sentenceOf({ title, evidence }: Result): string {
	const [seen = ""] = evidence;
	if (seen.trim() === "") return `Not so: ${title}`;
	// Not the name of a program, a file or a unit, nor an address.
	return /^(?!tailscaled|sshd|llamagate|systemd|nft)[a-z]+(?:'s)? /.test(seen)
		? `${seen.charAt(0).toUpperCase()}${seen.slice(1)}`
		: seen;
}

/** Whether a run of checks found something above `warn`. */
export function hasSeriousFindings(results: readonly Result[]): boolean {
	return results.some(
		({ state, severity }) =>
			state === "finding" && (severity === "critical" || severity === "high"),
	);
}

/** Worst first: findings by severity, then what is unknown, then the rest, each in the order of the checks. */
export function worstFirst(results: readonly Result[]): Result[] {
	const rank = ({ state, severity }: Result) =>
		state === "finding"
			? severities.indexOf(severity)
			: severities.length + ["unknown", "ok", "absent"].indexOf(state);
	return results.toSorted((a, b) => rank(a) - rank(b));
}
