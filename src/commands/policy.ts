import { readFile } from "node:fs/promises";
import { styleText } from "node:util";
import { BadFileError, exitCodes, UsageError } from "../errors.ts";
import { parseAddress } from "../net/ranges.ts";
import { formatJson } from "../report/json.ts";
import { formatTable } from "../report/table.ts";
import type { Finding } from "../tailscale/policy/finding.ts";
import {
	judgePolicy,
	type Opener,
	type Report,
} from "../tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../tailscale/policy/policyFile.ts";
import {
	controls,
	defaultChoices,
	isAdmin,
	isHeadscaleAdmin,
	isTag,
	recommendPolicy,
} from "../tailscale/policy/recommended.ts";
import type { Server } from "../tailscale/policy/selectors.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

const actions = ["print", "check"];

export const policy: Command = {
	help: `
Usage: llamagate policy print [--server-tag TAG] [--client-tag TAG] [--ssh]
                              [--admin WHO] [--for headscale]
       llamagate policy check FILE [--server-tag TAG]...
                              [--server-address ADDRESS]... [--json]

print writes a policy (HuJSON) that lets clients reach the gate and HTTPS on the
server, and nothing else. check says who can reach which port of the server
under a policy, what is too wide, and which of the policy's own tests fail.
Neither talks to Tailscale.

  --server-tag TAG   the server's tag (default: ${defaultChoices.serverTag}); check takes
                     several, for a server that carries them all
  --client-tag TAG   the clients' tag (default: ${defaultChoices.clientTag})
  --ssh              let WHO log in on the server by Tailscale SSH
  --admin WHO        who may assign the tags (default: ${defaultChoices.admin}; with
                     --for headscale nobody, or a user, such as alice@)
  --for headscale    print what headscale takes
  --server-address ADDRESS
                     an address of the server, for rules that name addresses
  --json             print JSON

Exit codes: 0 no finding, 1 findings, 2 usage, 78 the file cannot be read

Example: llamagate policy print > policy.hujson
         llamagate policy check policy.hujson
         llamagate policy check policy.hujson --server-tag tag:gpu
             --server-address 100.101.102.103
`,
	async run(given) {
		// Options may stand before the action, too.
		const at = Math.max(
			0,
			given.findIndex((arg) => actions.includes(arg)),
		);
		const args = given.toSpliced(at, 1);
		switch (given[at]) {
			case "print":
				return print(args);
			case "check":
				return check(args);
			default:
				throw new UsageError(
					given[at] === undefined
						? `say what to do: ${actions.join(", ")}`
						: `unknown action ${JSON.stringify(given[at])}; known: ${actions.join(", ")}`,
				);
		}
	},
};

function print(args: string[]): number {
	const { values } = readArgs(args, {
		"server-tag": { type: "string", default: defaultChoices.serverTag },
		"client-tag": { type: "string", default: defaultChoices.clientTag },
		admin: { type: "string" },
		ssh: { type: "boolean", default: defaultChoices.ssh },
		for: { type: "string", default: defaultChoices.control },
	});
	const serverTag = readTag("server-tag", values["server-tag"]);
	const clientTag = readTag("client-tag", values["client-tag"]);
	if (serverTag === clientTag)
		throw new UsageError(
			"the server and its clients need different tags, or the server may reach its clients",
		);
	const control = controls.find((name) => name === values.for);
	if (control === undefined)
		throw new UsageError(
			`--for ${JSON.stringify(values.for)} is unknown; known: ${controls.join(", ")}`,
		);
	const { ssh } = values;
	process.stdout.write(
		recommendPolicy({
			serverTag,
			clientTag,
			admin:
				control === "headscale"
					? readHeadscaleAdmin(values.admin, ssh)
					: readAdmin(values.admin ?? defaultChoices.admin),
			ssh,
			control,
		}),
	);
	return exitCodes.ok;
}

function readAdmin(admin: string): string {
	if (isAdmin(admin)) return admin;
	throw new UsageError(
		isHeadscaleAdmin(admin)
			? `--admin ${JSON.stringify(admin)} is how headscale writes a user; add --for headscale, or name a user such as me@example.com`
			: `--admin ${JSON.stringify(admin)} cannot own the tags; name autogroup:admin, another role that manages the tailnet, or a user such as me@example.com`,
	);
}

function readHeadscaleAdmin(
	admin: string | undefined,
	ssh: boolean,
): string | undefined {
	if (admin === undefined && ssh)
		throw new UsageError(
			"headscale knows no autogroup:admin; say with --admin who may log in by SSH, such as --admin alice@",
		);
	if (admin === undefined || isHeadscaleAdmin(admin)) return admin;
	throw new UsageError(
		`--admin ${JSON.stringify(admin)} is not a user of headscale; write the name with an @ behind it, such as alice@`,
	);
}

async function check(args: string[]): Promise<number> {
	const { values, positionals } = readArgs(
		args,
		{
			"server-tag": {
				type: "string",
				multiple: true,
				default: [defaultChoices.serverTag],
			},
			"server-address": { type: "string", multiple: true, default: [] },
			json: { type: "boolean", default: false },
		},
		["FILE"],
	);
	const server: Server = {
		tags: [
			...new Set(values["server-tag"].map((tag) => readTag("server-tag", tag))),
		],
		addresses: values["server-address"],
	};
	const wrong = server.addresses.find(
		(text) => parseAddress(text) === undefined,
	);
	if (wrong !== undefined)
		throw new UsageError(
			`--server-address ${JSON.stringify(wrong)} is not an address`,
		);
	const file = positionals[0] ?? "";
	const { reach, findings, tests } = judgePolicy(
		parseTailnetPolicy(await readText(file), file),
		server,
	);
	const ok = findings.length === 0;
	process.stdout.write(
		values.json
			? formatJson({
					ok,
					file,
					serverTag: server.tags[0],
					// Whom the policy was judged for: a device with a tag belongs to no user.
					server: { ...server, user: null },
					reach,
					findings,
					tests,
				})
			: `${describeServer(server)}\n${formatTable(
					["PORT", "USE", `WHO CAN OPEN IT ON ${server.tags.join(" + ")}`],
					reach.map(({ port, use, who }) => [
						String(port),
						use,
						who.map(formatOpener).join(", ") || "nobody",
					]),
				)}\n${findings.map(formatFinding).join("")}${formatTests(tests)}${summarize(findings)}\n`,
	);
	return ok ? exitCodes.ok : exitCodes.finding;
}

/** What is taken for granted of the server, and with which options to say it. */
function describeServer({ tags, addresses }: Server): string {
	return `Taken for granted of the server:
  tags       ${tags.join(", ")} and no other (--server-tag)
  user       none, as it carries a tag
  addresses  ${addresses.join(", ") || "not known"} (--server-address)
`;
}

function formatTests({ held, failed, unclear }: Report["tests"]): string {
	if (held + failed + unclear.length === 0) return "";
	const lines = unclear
		.slice(0, maxUnclear)
		.map(({ line, says }) => `          line ${line}: ${visibleLine(says)}\n`);
	const more =
		unclear.length > maxUnclear
			? `          and ${unclear.length - maxUnclear} more\n`
			: "";
	return `tests     ${held} hold, ${failed} fail${unclear.length > 0 ? `, ${unclear.length} not worked out` : ""}
${lines.join("")}${more}`;
}

/** So many tests that could not be worked out are listed. */
const maxUnclear = 5;

function readTag(option: string, text: string): string {
	if (isTag(text)) return text;
	throw new UsageError(
		`--${option} ${JSON.stringify(text)} is not a tag; write tag: and then a letter, letters, digits and dashes, such as tag:ai-server`,
	);
}

async function readText(file: string): Promise<string> {
	try {
		return await readFile(file, "utf8");
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		throw new BadFileError(file, [
			{ path: "", message: `it cannot be read (${code ?? message})` },
		]);
	}
}

function formatOpener({ source, detail, certain }: Opener): string {
	const notes = [detail, certain ? undefined : "unknown"].filter(
		(note) => note !== undefined,
	);
	return visibleLine(
		notes.length === 0 ? source : `${source} (${notes.join("; ")})`,
	);
}

const colours = {
	critical: "red",
	high: "red",
	medium: "yellow",
	low: "cyan",
} as const;

function formatFinding({ severity, at, line, says, change }: Finding): string {
	const where = [
		line === undefined ? undefined : `line ${line}`,
		at === "" ? undefined : at,
	]
		.filter((part) => part !== undefined)
		.join(", ");
	return `${styleText(colours[severity], severity.padEnd(8))}  ${where === "" ? "" : `${visibleLine(where)}: `}${visibleLine(says)}
          change: ${visibleLine(change)}
`;
}

function summarize(findings: readonly Finding[]): string {
	return findings.length === 0
		? styleText("green", "No finding.")
		: `${findings.length} ${findings.length === 1 ? "finding" : "findings"}.`;
}
