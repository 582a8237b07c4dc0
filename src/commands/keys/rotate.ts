import { formatDuration, parseDuration } from "../../duration.ts";
import { Finding, UsageError } from "../../errors.ts";
import { changeKeys } from "../../keys/changeKeys.ts";
import { type KeyEntry, parseTime, replacedOf } from "../../keys/keyFile.ts";
import { digestOf } from "../../keys/newKey.ts";
import { readArgs } from "../command.ts";
import {
	findKeys,
	hand,
	handedFacts,
	type KeyAction,
	making,
	noSuchKey,
	now,
	obtainKey,
	refuseKnownKey,
	say,
	sharedHelp,
} from "./action.ts";
import { readExpires, readName } from "./rules.ts";
import { tellDaemon } from "./tellDaemon.ts";

const maxOverlapMs = 366 * 86_400_000;

export const rotate: KeyAction = {
	help: `
Usage: llamagate keys rotate NAME [--overlap 24h] [--expires 90d] [--stdin]

Gives a key a new secret; its rules stay. The old secret works on for a while,
so that the client can be moved over. A running daemon is told at once.

${sharedHelp}
  --overlap DURATION how long the old key goes on working (default: 24h);
                     0 ends it now, and any that still worked before it
  --expires WHEN     when the new key ends (default: when the old one did)
  --stdin            take a key made elsewhere from standard input

Exit codes: 0 done, 1 refused, or a gate that seems to run could not be told,
            2 usage, 78 bad configuration or keys file

Example: llamagate keys rotate laptop --overlap 7d
`,
	async run(args) {
		const options = {
			...making,
			overlap: { type: "string", default: "24h" },
		} as const;
		const { values, positionals } = readArgs(args, options, ["NAME"]);
		const name = readName(positionals[0]);
		const overlapMs =
			values.overlap === "0" ? 0 : parseDuration(values.overlap);
		if (overlapMs === undefined)
			throw new UsageError(
				`--overlap ${values.overlap} is not a duration; write one such as 24h, or 0`,
			);
		if (overlapMs > maxOverlapMs)
			throw new UsageError(
				`--overlap ${values.overlap} is longer than a year; an old key should end sooner`,
			);
		const newExpires = readExpires(values.expires);
		const places = await findKeys(values.config);
		const { keysFile } = places;
		const key = await obtainKey(values.stdin);
		const nowMs = Date.now();
		let rotated: KeyEntry | undefined;
		await changeKeys(keysFile, false, (keys) => {
			const old =
				keys.find((known) => known.name === name) ?? noSuchKey(name, keys);
			if (old.sha256 === undefined)
				throw new Finding(
					`${name} is a key of Ollama's, made on the client; revoke it and add the new one with --ollama-key`,
				);
			refuseKnownKey(keys, digestOf(key));
			const expires = newExpires ?? old.expires;
			if (expires !== undefined && (parseTime(expires) ?? 0) <= nowMs)
				throw new Finding(
					`the key ${name} has expired; say how long the new one is good for, such as --expires 90d`,
				);
			// No old key gains time, and what has run out is forgotten.
			const until = Math.min(
				nowMs + overlapMs,
				parseTime(old.expires ?? "") ?? Number.POSITIVE_INFINITY,
			);
			const previous = [
				...(overlapMs === 0 ? [] : replacedOf(old)),
				{ sha256: old.sha256, expires: new Date(until).toISOString() },
			].filter((held) => (parseTime(held.expires) ?? 0) > nowMs);
			const { previous: _replaced, expires: _old, ...rest } = old;
			rotated = {
				...rest,
				sha256: digestOf(key),
				created: now(),
				...(expires === undefined ? undefined : { expires }),
				...(previous.length === 0 ? undefined : { previous }),
			};
			return keys.map((known) =>
				known === old && rotated !== undefined ? rotated : known,
			);
		});
		const shown = values.stdin ? undefined : key;
		if (values.json)
			return tellDaemon(places, rotated && handedFacts(rotated, shown));
		if (rotated !== undefined) hand(rotated, shown, "has a new secret");
		say(
			overlapMs === 0
				? "The old key and any before it are no longer in the file."
				: `The old key works for another ${formatDuration(overlapMs)} at the most.`,
		);
		return tellDaemon(places);
	},
};
