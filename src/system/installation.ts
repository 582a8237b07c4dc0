import { readFile, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { packageFolder } from "../packageFolder.ts";

/** Where llamagate itself lies on this host. */
export interface Installation {
	/** Node and the program's file, as `ExecStart=` wants them. */
	readonly program: readonly [node: string, script: string];
	/** The folder that holds `systemd`, `ufw` and `fail2ban`. */
	readonly packageFolder: string;
	readonly folder: string;
	readonly configFile: string;
	readonly keysFile: string;
	readonly user: string;
}

/** What the packaged files say, and what is there in an installation that lies elsewhere. */
const packagedNode = "/usr/lib/llamagate/bin/node";
const packagedFolder = "/usr/lib/llamagate/app";
const packagedFollower = "/usr/lib/llamagate/follow-tailscale";

export async function findInstallation(): Promise<Installation> {
	return {
		program: [
			await realpath(process.execPath),
			path.join(packageFolder, "bin/llamagate.js"),
		],
		packageFolder,
		folder: "/etc/llamagate",
		configFile: "/etc/llamagate/config.json",
		keysFile: "/etc/llamagate/keys.json",
		user: "llamagate",
	};
}

/** A file of the package, such as `systemd/llamagate.service`. */
export function readPackaged(
	{ packageFolder }: Installation,
	name: string,
): Promise<string> {
	return readFile(path.join(packageFolder, name), "utf8");
}

/**
 * Why a service cannot run from where this program lies; `undefined` if it can.
 * The unit shows the daemon /usr, its configuration and what is named here.
 */
export async function unfitPlace({
	program,
	packageFolder,
}: Installation): Promise<string | undefined> {
	for (const file of [...program, packageFolder]) {
		const home = /^\/(home|root|tmp|run\/user)\//.exec(`${file}/`)?.[1];
		if (home !== undefined)
			return `${file} lies below /${home}, which services must not see; install llamagate for the whole host, from the .deb or with: npm install --global`;
		for (let folder = file; ; folder = path.dirname(folder)) {
			const { uid, mode } = await stat(folder);
			// A folder that others own is one that they can put another program into, for root to run.
			if (uid !== 0 || (mode & 0o022 && !(mode & 0o1000)))
				return `${folder} can be changed by others than root, who would run what lies there; give it to root alone (sudo chown -R root:root ${folder}; sudo chmod -R go-w ${folder})`;
			if (folder === "/") break;
		}
	}
	return undefined;
}

/**
 * Puts this installation's paths into a packaged file. Without the package, Node
 * is updated by other means, and the options of its permission model differ
 * from version to version: one too many or too few, and the gate does not start.
 */
export function withPaths(
	text: string,
	{ program: [node], packageFolder }: Installation,
): string {
	const fitting =
		node === packagedNode
			? text
			: text.replaceAll(/ --(permission|disable-warning|allow)\S*/g, "");
	return (
		fitting
			.replaceAll(
				packagedFollower,
				path.join(packageFolder, "systemd/follow-tailscale"),
			)
			.replaceAll(packagedNode, node)
			// The folder is shown to the daemon whole where it holds only Node.
			.replaceAll(path.dirname(packagedNode), node)
			.replaceAll(packagedFolder, packageFolder)
	);
}
