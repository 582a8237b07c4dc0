/**
 * Known faults of Ollama's server on Linux that a later version mends, as of
 * the date below. Left out: crashes, what was never mended (pull and push
 * reach any host, nothing asks for a key: the gate is the answer to those),
 * and faults of Windows and of the desktop app.
 */
export const advisoriesAsOf = "2026-10-18";

export interface Advisory {
	readonly id: string;
	/** What anyone who reaches the server can do. */
	readonly says: string;
	/** The first version that has the fault; absent where all before `fixed` have it. */
	readonly since?: string;
	readonly fixed: string;
	readonly source: string;
}

export const advisories: readonly Advisory[] = [
	{
		id: "CVE-2026-103663",
		says: "a pull from a foreign registry writes files anywhere that Ollama may, which runs code",
		// The record names 0.34.2; the function that it names came with 0.14.0 and was the same until then.
		since: "0.14.0",
		fixed: "0.35.0",
		source: "https://www.cve.org/CVERecord?id=CVE-2026-103663",
	},
	{
		id: "CVE-2026-7482",
		says: "a model file made for it reads the server's memory, prompts and environment included",
		fixed: "0.17.1",
		source: "https://github.com/ollama/ollama/releases/tag/v0.17.1",
	},
	{
		id: "CVE-2025-51471",
		says: "a foreign registry gets the token that Ollama signs in with",
		fixed: "0.14.3",
		source: "https://github.com/ollama/ollama/pull/13738",
	},
	{
		id: "CVE-2024-45436",
		says: "a model in a ZIP archive writes files anywhere, which runs code",
		fixed: "0.1.47",
		source: "https://github.com/ollama/ollama/pull/5314",
	},
	{
		id: "CVE-2024-37032",
		says: "a pull from a foreign registry writes files anywhere, which runs code",
		fixed: "0.1.34",
		source: "https://github.com/ollama/ollama/pull/4175",
	},
	{
		id: "CVE-2024-28224",
		says: "a web page that a user of the host opens uses the whole API (DNS rebinding)",
		fixed: "0.1.29",
		source: "https://www.cve.org/CVERecord?id=CVE-2024-28224",
	},
];

/**
 * What is known of a version. A release candidate (`-rc1`) counts as older than
 * its release.
 *
 * @returns `undefined` if that is not a version
 */
export function advisoriesFor(
	version: string,
	table: readonly Advisory[] = advisories,
): Advisory[] | undefined {
	const own = parseVersion(version);
	if (own === undefined) return undefined;
	return table.filter(
		({ since = "0.0.0", fixed }) =>
			compare(own, parseVersion(since) ?? zero) >= 0 &&
			compare(own, parseVersion(fixed) ?? zero) < 0,
	);
}

/**
 * Whether a version is newer than another.
 *
 * @returns `undefined` if one of them is not a version
 */
export function isNewerThan(
	version: string,
	other: string,
): boolean | undefined {
	const [own, known] = [parseVersion(version), parseVersion(other)];
	if (own === undefined || known === undefined) return undefined;
	return compare(own, known) > 0;
}

interface Version {
	readonly numbers: readonly number[];
	/** A release candidate of it, or a build on the way to it. */
	readonly isBefore: boolean;
}

const zero: Version = { numbers: [0, 0, 0], isBefore: false };

function parseVersion(text: string): Version | undefined {
	const [, major, minor, patch, rest] =
		/^v?(\d+)\.(\d+)\.(\d+)(.*)$/.exec(text) ?? [];
	const numbers = [major, minor, patch].map(Number);
	// A version of nothing is what a build of one's own calls itself.
	if (rest === undefined || numbers.every((number) => number === 0))
		return undefined;
	return { numbers, isBefore: rest.startsWith("-") };
}

function compare(a: Version, b: Version): number {
	for (const [index, number] of a.numbers.entries()) {
		const difference = number - (b.numbers[index] ?? 0);
		if (difference !== 0) return difference;
	}
	return Number(b.isBefore) - Number(a.isBefore);
}
