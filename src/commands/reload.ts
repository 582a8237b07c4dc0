import { askDaemon, isText, readAnswer, strangeAt } from "../admin/client.ts";
import { defaultConfigPath, loadConfig, typed } from "../config/load.ts";
import { BadFileError, exitCodes, Finding } from "../errors.ts";
import type { ReloadResult } from "../gate/reload.ts";
import { bridgeHints } from "../host/bridges/hints.ts";
import { visible } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

export const reload: Command = {
	help: `
Usage: llamagate reload [--config FILE]

Asks the running gate to read its configuration and its keys anew, and says
whether it did. A broken file changes nothing: what was in force stays in force,
and the mistakes are printed. "systemctl reload llamagate" runs this. It also says
which changed sections take a restart (admin, ledger, state; alarms, and names
of hosts that they tell of, one of the ledger), and where the configuration names a host to which no bridge leads yet.

  -c, --config FILE  the configuration (default: ${defaultConfigPath})

Exit codes: 0 reloaded, 1 no gate answers, 2 usage,
            78 a broken configuration or keys file

Example: sudo llamagate reload
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		const settings = await loadConfig(values.config);
		const { admin } = settings;
		if (admin.socket === undefined)
			throw new Finding(
				'admin.socket is "off", so nobody can be asked; send the gate a SIGHUP and look at its log',
			);
		const { status, body, code } = await askDaemon(
			admin.socket,
			"POST /reload",
		);
		if (status === 0)
			throw new Finding(
				code === "EACCES"
					? `only root may ask the gate on ${admin.socket}; run: sudo ${typed("reload", values.config)}`
					: `no gate answers on ${admin.socket} (${code}): does it run? If it does, with another admin.socket or none, send it a SIGHUP and look at its log`,
			);
		const result = readAnswer(body, isResult);
		if (result === undefined)
			throw new Finding(
				`${strangeAt(admin.socket, status)}; restart it: sudo systemctl restart llamagate`,
			);
		if (!result.ok) throw new BadFileError(result.file, result.mistakes);
		process.stdout.write(`Reloaded: ${result.keys} key(s) in force.\n`);
		for (const line of leftOver(result))
			process.stdout.write(`${visible(line)}\n`);
		for (const hint of await bridgeHints(settings))
			process.stdout.write(`${visible(hint)}\n`);
		return exitCodes.ok;
	},
};

function isResult(said: ReloadResult): boolean {
	if (said.ok === true) return typeof said.keys === "number";
	return (
		said.ok === false &&
		isText(said.file) &&
		Array.isArray(said.mistakes) &&
		said.mistakes.every(
			(mistake) =>
				isText(mistake?.path) &&
				isText(mistake.message) &&
				(mistake.line === undefined || Number.isFinite(mistake.line)),
		)
	);
}

/** What was not taken over; an older daemon does not say. */
function leftOver(
	result: Partial<Extract<ReloadResult, { ok: true }>>,
): string[] {
	const sections: readonly unknown[] = Array.isArray(result.restart)
		? result.restart
		: [];
	return [
		...(sections.length > 0 ? [takesRestart(sections.map(String))] : []),
		...(result.ledgerRestart === true
			? [
					"alarms, or the hosts that they name: changed, which takes a restart of the ledger: sudo systemctl restart llamagate-ledger",
				]
			: []),
	];
}

/** Says of sections that the running gate goes on with those of its start. */
export function takesRestart(sections: readonly string[]): string {
	return `${sections.join(", ")}: changed since the gate's start, which takes a restart: sudo systemctl restart llamagate`;
}
