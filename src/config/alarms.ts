import { isLoopbackAddress, isTailscaleAddress } from "../net/ranges.ts";

/** What an owner may want to be told of at once. */
export const alarmSubjects = [
	"canary",
	"lockout",
	"budget",
	"upstream_down",
	"key_expiring",
] as const;
export type AlarmSubject = (typeof alarmSubjects)[number];

/** Whose JSON a receiver reads. */
export const alarmForms = ["ntfy", "slack", "discord"] as const;
export type AlarmForm = (typeof alarmForms)[number];

/** An entry of the setting `alarms`. */
export interface AlarmEntry {
	/** A secret: who knows it may post there. One of the two is given. */
	readonly url?: string;
	/** A file that holds it. */
	readonly urlFile?: string;
	readonly form?: AlarmForm;
	readonly on?: readonly AlarmSubject[];
}

/** The setting `alarms`. No value of it is ever quoted. */
export const alarmsSchema = {
	type: "array",
	maxItems: 16,
	"x-expected": "a list of alarms, sixteen at the most",
	"x-secret": true,
	items: {
		type: "object",
		additionalProperties: false,
		"x-expected": "an alarm: { url, … }",
		"x-secret": true,
		properties: {
			url: {
				type: "string",
				minLength: 1,
				"x-expected": "an address such as https://ntfy.example/topic",
				"x-secret": true,
				examples: ["https://ntfy.example/topic"],
			},
			urlFile: {
				type: "string",
				minLength: 1,
				"x-expected": "a path",
				// A person may have the address in the wrong place.
				"x-secret": true,
				examples: ["alarms/ntfy"],
			},
			form: {
				type: "string",
				enum: alarmForms,
				"x-expected": alarmForms.map((form) => `"${form}"`).join(" or "),
				"x-secret": true,
				examples: ["ntfy"],
			},
			on: {
				type: "array",
				minItems: 1,
				"x-expected": `a list of ${alarmSubjects.join(", ")}`,
				"x-secret": true,
				items: {
					type: "string",
					enum: alarmSubjects,
					"x-expected": alarmSubjects.join(", "),
				},
				examples: [["canary"]],
			},
		},
	},
	default: [],
	description:
		'Whom the ledger tells at once (docs/alarms.md): `url` is a topic of ntfy or a webhook of Slack or Discord, a secret, so that a file with one must be its owner\'s alone; or `urlFile` names a file that holds it, relative to this one. `on` (default: all) chooses from `canary`, `lockout`, `budget`, `upstream_down`, `key_expiring`; `form` (default: by the host) says whose JSON it is: `"ntfy"`, `"slack"` or `"discord"`. It needs the section `ledger`.',
} as const;

/** What of an alarm the schema cannot tell, and where it is. */
export function alarmMistakes(
	alarms: readonly AlarmEntry[],
	hasLedger: boolean,
): [(string | number)[], string][] {
	const mistakes: [(string | number)[], string][] = [];
	if (alarms.length > 0 && !hasLedger)
		mistakes.push([[], 'need the ledger, which sends them; add "ledger": {}']);
	for (const [index, { url, urlFile, form }] of alarms.entries()) {
		if ((url === undefined) === (urlFile === undefined))
			mistakes.push([[index], "needs a url or a urlFile, and one of them"]);
		// Its messages name a file by its path.
		if (urlFile?.includes("://"))
			mistakes.push([
				[index, "urlFile"],
				"is an address, and is to name a file that holds it; an address belongs into url",
			]);
		const why = url === undefined ? undefined : urlMistake(url, form);
		if (why !== undefined) mistakes.push([[index, "url"], why]);
	}
	return mistakes;
}

const hosts: ReadonlyMap<string, AlarmForm> = new Map([
	["hooks.slack.com", "slack"],
	["hooks.slack-gov.com", "slack"],
	["discord.com", "discord"],
	["discordapp.com", "discord"],
]);

/** Whose JSON a receiver reads that nobody named: by its host, and ntfy's on any other. */
export function formOf(url: URL): AlarmForm {
	const { hostname } = url;
	return (
		hosts.get(hostname) ??
		(hostname.endsWith(".discord.com") ? "discord" : "ntfy")
	);
}

/** Why an address is none to post to, without a word of it; `undefined` if it is one. */
export function urlMistake(text: string, form?: AlarmForm): string | undefined {
	if (!URL.canParse(text))
		return "expected an address such as https://ntfy.example/topic";
	const url = new URL(text);
	if (url.protocol === "http:" && !isPrivate(url.hostname))
		return "expected https://; http:// shows the secret on its way, and is taken for loopback and the tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48, *.ts.net) alone";
	if (url.protocol !== "https:" && url.protocol !== "http:")
		return "expected https://";
	const isNtfy = (form ?? formOf(url)) === "ntfy";
	if (isNtfy && !/[^/]$/.test(url.pathname))
		return "names no topic of ntfy; expected an address such as https://ntfy.example/topic";
	// A path is sent as it is but for ntfy's, whose end is the topic.
	const parts = [url.username, url.password, isNtfy ? url.pathname : ""];
	return parts.every(isDecodable)
		? undefined
		: "has a % that is not an escape; a % itself is written %25";
}

function isDecodable(text: string): boolean {
	try {
		decodeURIComponent(text);
		return true;
	} catch {
		return false;
	}
}

function isPrivate(hostname: string): boolean {
	const address = hostname.replace(/^\[|\]$/g, "");
	return (
		isLoopbackAddress(address) ||
		isTailscaleAddress(address) ||
		hostname.endsWith(".ts.net")
	);
}
