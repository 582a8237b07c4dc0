import { readFile } from "node:fs/promises";
import { styleText } from "node:util";
import { BadFileError } from "../config/strictJson.ts";
import { parseAddress } from "../net/ranges.ts";
import { type Finding, judgePolicy, type Opener } from "../tailnet/judge.ts";
import { parseTailnetPolicy } from "../tailnet/policyFile.ts";
import {
	defaultChoices,
	isAdmin,
	isTag,
	recommendPolicy,
} from "../tailnet/recommended.ts";
import { visibleLine } from "../visible.ts";
import { type Command, exitCodes, readArgs, UsageError } from "./command.ts";
import { formatTable } from "./table.ts";

const actions = ["print", "check"];

export const policy: Command = {
	summary: "write a tailnet policy for the server, or judge the one you have",
	help: `
Usage: llamagate policy print [--server-tag TAG] [--client-tag TAG] [--ssh]
                              [--admin WHO]
       llamagate policy check FILE [--server-tag TAG]
                              [--server-address ADDRESS]... [--json]

print writes a policy (HuJSON) that lets clients reach the gate and HTTPS on the
server, and nothing else. check says who can reach which port of the server
under a policy, and what is too wide. Neither talks to Tailscale.

  --server-tag TAG   the server's tag (default: ${defaultChoices.serverTag})
  --client-tag TAG   the clients' tag (default: ${defaultChoices.clientTag})
  --ssh              let WHO log in on the server by Tailscale SSH
  --admin WHO        who may assign the tags (default: ${defaultChoices.admin})
  --server-address ADDRESS
                     an address of the server, for rules that name addresses
  --json             print JSON

Exit codes: 0 no finding, 1 findings, 2 usage, 78 the file cannot be read

Example: llamagate policy print > policy.hujson
         llamagate policy check policy.hujson
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
		admin: { type: "string", default: defaultChoices.admin },
		ssh: { type: "boolean", default: defaultChoices.ssh },
	});
	const serverTag = readTag("server-tag", values["server-tag"]);
	const clientTag = readTag("client-tag", values["client-tag"]);
	if (serverTag === clientTag)
		throw new UsageError(
			"the server and its clients need different tags, or the server may reach its clients",
		);
	if (!isAdmin(values.admin))
		throw new UsageError(
			`--admin ${JSON.stringify(values.admin)} cannot own the tags; name autogroup:admin, another role that manages the tailnet, or a user such as me@example.com`,
		);
	process.stdout.write(
		recommendPolicy({
			serverTag,
			clientTag,
			admin: values.admin,
			ssh: values.ssh,
		}),
	);
	return exitCodes.ok;
}

async function check(args: string[]): Promise<number> {
	const { values, positionals } = readArgs(
		args,
		{
			"server-tag": { type: "string", default: defaultChoices.serverTag },
			"server-address": { type: "string", multiple: true, default: [] },
			json: { type: "boolean", default: false },
		},
		["FILE"],
	);
	const tag = readTag("server-tag", values["server-tag"]);
	const addresses = values["server-address"];
	const wrong = addresses.find((text) => parseAddress(text) === undefined);
	if (wrong !== undefined)
		throw new UsageError(
			`--server-address ${JSON.stringify(wrong)} is no address`,
		);
	const file = positionals[0] ?? "";
	const { reach, findings } = judgePolicy(
		parseTailnetPolicy(await readText(file), file),
		{ tag, addresses },
	);
	const ok = findings.length === 0;
	process.stdout.write(
		values.json
			? `${JSON.stringify({ ok, file, serverTag: tag, reach, findings }, undefined, 2)}\n`
			: `${formatTable(
					["PORT", "USE", `WHO CAN OPEN IT ON ${tag}`],
					reach.map(({ port, use, who }) => [
						String(port),
						use,
						who.map(formatOpener).join(", ") || "nobody",
					]),
				)}\n${findings.map(formatFinding).join("")}${summarize(findings)}\n`,
	);
	return ok ? exitCodes.ok : exitCodes.finding;
}

function readTag(option: string, text: string): string {
	if (isTag(text)) return text;
	throw new UsageError(
		`--${option} ${JSON.stringify(text)} is no tag; write tag: and then a letter, letters, digits and dashes, such as tag:ai-server`,
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
