import { unlink } from "node:fs/promises";
import path from "node:path";
import { placesOf } from "../../admin/places.ts";
import { loadConfig } from "../../config/load.ts";
import { Finding, UsageError } from "../../errors.ts";
import { changeKeys } from "../../keys/changeKeys.ts";
import { defaultScopes, type KeyEntry } from "../../keys/keyFile.ts";
import { digestOf } from "../../keys/newKey.ts";
import { loadPeopleSecret, makePeopleSecret } from "../../keys/peopleSecret.ts";
import { scopes } from "../../ollama/routes.ts";
import { defaultPriority, priorities } from "../../priority.ts";
import { warningOfBudget } from "../budgetKeeping.ts";
import { readArgs } from "../command.ts";
import {
	hand,
	handedFacts,
	type KeyAction,
	making,
	now,
	obtainKey,
	refuseKnownKey,
	say,
	sharedHelp,
	warnOfRootOwner,
} from "./action.ts";
import { refuseUnknownDevices, sayWhoIsMeant } from "./bound.ts";
import {
	readBind,
	readBudget,
	readExpires,
	readLimit,
	readModels,
	readName,
	readOllamaKey,
	readPriority,
	readScopes,
	readShare,
	refuseLongBudget,
	refuseUnknownGroup,
	ruleOptions,
} from "./rules.ts";
import { tellDaemon } from "./tellDaemon.ts";

/** Programs that sign who is asking, in a way that is known here. */
const peopleApps = ["open-webui"];

export const add: KeyAction = {
	help: `
Usage: llamagate keys add NAME [options]

Makes a key, or takes one made elsewhere. It is shown once; the file holds only
its digest. A running daemon is told at once.

${sharedHelp}
  --scopes LIST      what the key may do: ${scopes.join(",")}
                     (default: ${defaultScopes.join(",")})
  --models LIST      patterns of models it may use, such as
                     qwen3:*,llama3.2:*; no tag means :latest (default: all)
  --expires WHEN     a duration such as 90d, a day such as 2030-01-01 (UTC), or
                     a time such as 2030-01-01T12:00:00Z (default: never)
  --requests-per-minute N
                     in place of the configuration's limit
  --concurrent N     requests at work at once, in place of the configuration's
  --share N          how much of the model's time it is owed beside other keys
                     (default: 1; with 2 twice as much as one of 1)
  --priority CLASS   ${priorities.join(", ")}: of those that wait, a higher
                     class goes first (default: ${defaultPriority})
  --budget LIST      what it may use in a day, week or month:
                     gpu=2h,tokens=1000000,requests=500,per=day,then=batch
                     (default: as much as it gets). Without per=: a day; without
                     timezone=: of UTC; without then=: refuse (docs/usage.md)
  --group NAME       a group of budgets.groups in the configuration, whose
                     budget it shares with the group's other keys
  --bind LIST        devices, people and tags of the tailnet that it may be used
                     from: laptop,me@example.com,tag:client (default: all);
                     carol@ is a headscale user without an e-mail
  --ollama-key FILE  the client's ~/.ollama/id_ed25519.pub, in place of a key:
                     the stock ollama command signs its requests with it
  --people APP       its app signs who is asking, as ${peopleApps.join(", ")} does: makes the
                     secret for that, in NAME.secret beside the keys file, or
                     keeps the one that is there; rules for people go into the
                     keys file (docs/people.md)
  --canary           a key that lets nobody in and raises an alarm when used:
                     leave it where a thief would look
  --stdin            take a key made elsewhere from standard input

Exit codes: 0 done, 1 refused, or a gate that seems to run could not be told,
            2 usage, 78 bad configuration or keys file

Example: llamagate keys add laptop --expires 90d --concurrent 2
         llamagate keys add laptop --stdin < laptop.key
`,
	async run(args) {
		const { values, positionals } = readArgs(
			args,
			{
				...making,
				...ruleOptions,
				"ollama-key": { type: "string" },
				canary: { type: "boolean", default: false },
				people: { type: "string" },
			},
			["NAME"],
		);
		const name = readName(positionals[0]);
		const granted = readScopes(values.scopes);
		const expires = readExpires(values.expires);
		const models = readModels(values.models);
		const bind = values.bind === undefined ? undefined : readBind(values.bind);
		const requestsPerMinute = readLimit(
			"requests-per-minute",
			values["requests-per-minute"],
		);
		const concurrent = readLimit("concurrent", values.concurrent);
		const share = readShare(values.share);
		const priority = readPriority(values.priority);
		const budget = readBudget(values.budget);
		const ollamaKeyFile = values["ollama-key"];
		if (ollamaKeyFile !== undefined && values.stdin)
			throw new UsageError("--ollama-key and --stdin are two keys; give one");
		if (values.people !== undefined && !peopleApps.includes(values.people))
			throw new UsageError(
				`--people ${JSON.stringify(values.people)} is not an app that signs who is asking; known: ${peopleApps.join(", ")}`,
			);
		const settings = await loadConfig(values.config);
		if (bind !== undefined) refuseUnknownDevices(settings, values.config);
		refuseUnknownGroup(values.group, settings, values.config);
		refuseLongBudget(
			name,
			{ budget, group: values.group },
			settings,
			values.config,
		);
		const key =
			ollamaKeyFile === undefined ? await obtainKey(values.stdin) : undefined;
		const entry: KeyEntry = {
			name,
			...(key === undefined
				? { ollamaKey: await readOllamaKey(ollamaKeyFile ?? "") }
				: { sha256: digestOf(key) }),
			scopes: granted,
			...(models && { models }),
			...(bind && { bind }),
			...(values.people !== undefined && {
				people: { jwt: { secretFile: `${name}.secret` }, unknown: "refuse" },
			}),
			...(values.canary && { canary: true }),
			...((requestsPerMinute ?? concurrent) !== undefined && {
				limits: {
					...(requestsPerMinute !== undefined && { requestsPerMinute }),
					...(concurrent !== undefined && { concurrent }),
				},
			}),
			...(share !== undefined && { share }),
			...(priority !== undefined && { priority }),
			...(budget !== undefined && { budget }),
			...(values.group !== undefined && { group: values.group }),
			created: now(),
			...(expires !== undefined && { expires }),
		};
		const secret = entry.people && secretBeside(settings.keysFile, name);
		let found: "made" | "kept" | undefined;
		await changeKeys(
			settings.keysFile,
			true,
			async (keys) => {
				if (keys.some((known) => known.name === name))
					throw new Finding(
						`there is a key named ${name} already; change its rules with: llamagate keys edit ${name}, its secret with: llamagate keys rotate ${name}`,
					);
				refuseKnownKey(keys, entry.sha256 ?? entry.ollamaKey ?? "");
				// It is there before the daemon hears of the key, and does not stay without
				// one; of two commands for one name the other must not take it for its own.
				if (secret !== undefined) {
					found = await makePeopleSecret(secret, settings.keysFile);
					await loadPeopleSecret(secret);
				}
				return [...keys, entry];
			},
			async () => {
				if (secret !== undefined && found === "made") await unlink(secret);
			},
		);
		const shown = values.stdin ? undefined : key;
		const places = placesOf(settings);
		const warn = () => warnOfRootOwner(settings.keysFile);
		// What could still fail must not come before the one time that the key is seen.
		const told = values.json
			? await tellDaemon(places, handedFacts(entry, shown), warn)
			: hand(entry, shown, shown === undefined ? "is stored" : "is made");
		if (secret !== undefined)
			say(
				`Its app signs with the secret in ${secret}, which ${found === "made" ? "is made" : `was there before and is kept as it was (for a new one revoke ${name}, delete the file, and add the key again)`}. What to set there: llamagate connect open-webui --secret-file ${secret}`,
			);
		if (bind !== undefined) await sayWhoIsMeant(bind, settings.identity.socket);
		const warning = warningOfBudget(settings, entry);
		if (warning !== undefined) say(warning);
		return told ?? tellDaemon(places, undefined, warn);
	},
};

function secretBeside(keysFile: string, name: string): string {
	return path.join(path.dirname(keysFile), `${name}.secret`);
}
