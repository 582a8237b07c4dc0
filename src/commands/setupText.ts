import { readFile } from "node:fs/promises";
import { styleText } from "node:util";
import { createTwoFilesPatch } from "diff";
import { loadConfig } from "../config/load.ts";
import { maskedText } from "../config/maskedText.ts";
import { tailscaleStatus } from "../host/tailscale/step.ts";
import type { Journal } from "../setup/journal.ts";
import type { Action, Inspection, Step } from "../setup/step.ts";
import { findInstallation } from "../system/installation.ts";
import { formatCommand } from "../system/run.ts";
import { visible } from "../visible.ts";

export function mark(ok: boolean): string {
	return ok ? styleText("green", "ok") : styleText("red", "no");
}

const states: Record<Inspection["state"], string> = {
	done: styleText("green", "in order"),
	todo: styleText("yellow", "to do"),
	absent: styleText("dim", "not here"),
	unsafe: styleText("red", "left to you"),
};

export async function formatPlan(
	{ id, title, why }: Step,
	{ state, says, actions, notes }: Inspection,
): Promise<string> {
	const lines = [
		`\n${styleText("bold", title)} (${id}): ${states[state]}`,
		`  ${visible(says)}`,
	];
	if (actions.length > 0) lines.push(`  Why: ${why}`);
	for (const action of actions) {
		lines.push(`    ${styleText("cyan", describe(action))}`);
		if (action.kind === "file")
			lines.push(...(await formatDiff(action)).map((line) => `      ${line}`));
	}
	for (const note of notes)
		lines.push(`  ${styleText("blue", "note:")} ${visible(note)}`);
	return `${lines.join("\n")}\n`;
}

async function formatDiff(
	action: Action & { kind: "file" },
): Promise<string[]> {
	const before = await readFile(action.path, "utf8").catch(() => "");
	if (before === action.content) return ["(its owner and mode alone)"];
	// A plan may go into a file or to somebody else; what not everybody may read does not go along.
	const isOpen = (action.mode & 0o004) !== 0;
	const show = isOpen ? (text: string) => text : maskedText;
	const patch = createTwoFilesPatch(
		before === "" ? "/dev/null" : action.path,
		action.path,
		show(before),
		show(action.content),
		undefined,
		undefined,
		isOpen ? {} : { context: 0 },
	);
	return (
		patch
			.trimEnd()
			.split("\n")
			.filter((line) => !/^(=====|Index: )/.test(line))
			// The host's file was written by others.
			.map(visible)
			.map((line) =>
				line.startsWith("+")
					? styleText("green", line)
					: line.startsWith("-")
						? styleText("red", line)
						: line,
			)
	);
}

/** One line on what is done, as a person would type it. */
export function describe(action: Action): string {
	switch (action.kind) {
		case "file":
			return `write ${action.path} (${action.user}:${action.group} ${octal(action.mode)})`;
		case "directory":
			return `directory ${action.path} (${action.user}:${action.group} ${octal(action.mode)})`;
		case "command": {
			const [node, script, ...args] = action.command;
			const words =
				node === process.execPath && script?.endsWith("/bin/llamagate.js")
					? ["llamagate", ...args]
					: action.command;
			return formatCommand(words);
		}
	}
}

function octal(mode: number): string {
	return mode.toString(8).padStart(4, "0");
}

export async function closing(
	unsafe: readonly { step: Step; inspection: Inspection }[],
	journal: Journal,
	key: string | undefined,
): Promise<string> {
	const lines = [""];
	for (const { step, inspection } of unsafe)
		lines.push(
			`${styleText("yellow", "Left to you")} (${step.id}): ${visible(inspection.says)}`,
			"",
		);
	if (key !== undefined)
		lines.push(
			`${styleText("bold", "The first key, not shown again:")} ${key}`,
			"",
		);
	const place = await tailscaleStatus();
	const { configFile } = await findInstallation();
	const hasTls = await loadConfig(configFile).then(
		({ tls }) => tls !== undefined,
		() => false,
	);
	const name = place?.magicDns
		? (place.dnsName.split(".")[0] ?? "THIS-HOST")
		: (place?.addresses[0] ?? "THIS-HOST");
	lines.push(
		"Try it from another device of your tailnet:",
		`  curl -H "Authorization: Bearer KEY" ${hasTls ? `https://${place?.dnsName || name}` : `http://${name}`}:11434/api/tags`,
		"Then:",
		"  llamagate connect            what to paste into your clients",
		"  llamagate policy print       a policy for your tailnet's admin console",
	);
	if (journal.entries.length > 0)
		lines.push("  sudo llamagate setup --undo  takes all of this back");
	return `${lines.join("\n")}\n`;
}
