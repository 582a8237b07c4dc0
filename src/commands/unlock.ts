import {
	askDaemon,
	isLockedOut,
	readAnswer,
	strangeAt,
} from "../admin/client.ts";
import { findPlaces } from "../admin/places.ts";
import type { LockedOut } from "../admin/status.ts";
import { defaultConfigPath } from "../config/load.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { parseAddress } from "../net/ranges.ts";
import { formatJson } from "../report/json.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { nameLockedOut } from "./status.ts";

export const unlock: Command = {
	help: `
Usage: sudo llamagate unlock ADDRESS [--config FILE] [--json]
       sudo llamagate unlock --all

Ends a lockout before its time, for the other addresses of the device too, and
forgets what was counted. "llamagate status" says who is locked out. Bans by
fail2ban are its own: sudo fail2ban-client set llamagate unbanip ADDRESS

  --all              let everybody in again
  -c, --config FILE  the gate's configuration (default: ${defaultConfigPath})
  --json             print JSON

Exit codes: 0 let in, 1 it is not locked out or no gate answers, 2 usage,
            78 the configuration cannot be read

Example: sudo llamagate unlock 100.101.102.105
`,
	async run(args) {
		const options = {
			all: { type: "boolean", default: false },
			config: { type: "string", short: "c", default: defaultConfigPath },
			json: { type: "boolean", default: false },
		} as const;
		const all = args.includes("--all");
		const { values, positionals } = readArgs(
			args,
			options,
			all ? [] : ["ADDRESS"],
		);
		const [text = ""] = positionals;
		const address = all ? undefined : parseAddress(text)?.toString();
		if (!all && address === undefined)
			throw new UsageError(
				`${JSON.stringify(text)} is not an address; sudo llamagate status names those that are locked out`,
			);
		const { adminSocket } = await findPlaces(values.config);
		if (adminSocket === undefined)
			throw new Finding(
				'admin.socket is "off", so the gate cannot be asked; a restart ends all lockouts',
			);
		const { unlocked, lockouts } = await askForUnlock(adminSocket, address);
		const ok = all || unlocked.length > 0;
		if (values.json)
			process.stdout.write(formatJson({ ok, unlocked, lockouts }));
		else if (unlocked.length > 0)
			for (const one of unlocked)
				process.stdout.write(
					`Let in again: ${visibleLine(nameLockedOut(one))}\n`,
				);
		else if (address === undefined)
			process.stdout.write("Nobody is locked out.\n");
		else
			process.stderr.write(
				`llamagate unlock: ${address} is not locked out; ${visibleLine(othersThan(address, lockouts))}\n`,
			);
		return ok ? exitCodes.ok : exitCodes.finding;
	},
};

/** Asks the daemon. @throws {Finding} if none answers, or not as it should */
async function askForUnlock(
	socket: string,
	address: string | undefined,
): Promise<Unlocked> {
	const query =
		address === undefined ? "" : `?address=${encodeURIComponent(address)}`;
	const { status, body, code } = await askDaemon(
		socket,
		`POST /unlock${query}`,
	);
	if (code === "EACCES")
		throw new Finding(
			`only root may ask the gate on ${socket}; run it with sudo`,
		);
	if (status === 0)
		throw new Finding(
			`no gate answers on ${socket} (${code}); see: systemctl status llamagate`,
		);
	const said = status === 200 ? readAnswer(body, isUnlocked) : undefined;
	if (said === undefined)
		throw new Finding(`${strangeAt(socket, status)}; restart it`);
	return said;
}

interface Unlocked {
	readonly unlocked: readonly LockedOut[];
	readonly lockouts: readonly LockedOut[];
}

function isUnlocked({ unlocked, lockouts }: Unlocked): boolean {
	return [unlocked, lockouts].every(
		(list) => Array.isArray(list) && list.every(isLockedOut),
	);
}

function othersThan(address: string, lockouts: readonly LockedOut[]): string {
	if (lockouts.length === 0)
		return "nobody is (fail2ban may have banned it: sudo fail2ban-client status llamagate)";
	const near = nearest(
		address,
		lockouts.flatMap(({ addresses }) => addresses),
	);
	return near === undefined
		? `these are: ${lockouts.map(nameLockedOut).join("; ")}`
		: `did you mean ${near}?`;
}
