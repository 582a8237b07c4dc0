import { loadConfig } from "../../config/load.ts";
import { loadKeys } from "../../keys/keyFile.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	type Action,
	done,
	type Proof,
	type Step,
	todo,
} from "../../setup/step.ts";
import { accountNumber } from "../../system/accounts.ts";
import type { Installation } from "../../system/installation.ts";
import { outputOf } from "../../system/run.ts";
import { parallelToCome, withParallel } from "../ollama/parallel.ts";
import { ollamaAddress } from "../ollama/step.ts";
import { firstConfig } from "./firstConfig.ts";
import { offerReload } from "./reloadGate.ts";

/** The daemon's user, its configuration, and a key to begin with. */
export function account(
	installation: Installation,
	keyName: string,
	chosenParallel: number | undefined,
): Step {
	const { configFile, folder, user } = installation;
	return {
		id: "account",
		title: "The daemon's user, its folder and a first key",
		why: "The gate runs as a user of its own, which can read its keys' digests and not change them.",
		async inspect() {
			const actions: Action[] = [];
			const exists =
				(await outputOf("getent", "passwd", user)) !== undefined &&
				(await outputOf("getent", "group", user)) !== undefined;
			if (!exists)
				actions.push({
					kind: "command",
					command: [
						"useradd",
						"--system",
						"--user-group",
						"--no-create-home",
						"--home-dir",
						"/nonexistent",
						"--shell",
						"/usr/sbin/nologin",
						user,
					],
					// Its number would go to the next user, who could then read what is left there.
					undo: [["sh", "-c", '[ -e "$0" ] || userdel "$1"', folder, user]],
				});
			const owner = { user: "root", group: user };
			const gid = await accountNumber("group", user);
			const { snapshot: directory } = await takeSnapshot(folder);
			if (
				directory.kind !== "directory" ||
				directory.uid !== 0 ||
				directory.gid !== gid ||
				directory.mode !== 0o750
			)
				actions.push({
					kind: "directory",
					path: folder,
					...owner,
					mode: 0o750,
				});
			const { snapshot: config, content } = await takeSnapshot(configFile);
			if (config.kind === "nothing") {
				const parallel = await parallelToCome(ollamaAddress, chosenParallel);
				actions.push({
					kind: "file",
					path: configFile,
					content:
						parallel === undefined
							? firstConfig
							: withParallel(firstConfig, parallel),
					...owner,
					mode: 0o640,
				});
			} else if (
				config.kind === "file" &&
				content !== undefined &&
				(config.uid !== 0 || config.gid !== gid || config.mode !== 0o640)
			)
				actions.push(
					{
						kind: "file",
						path: configFile,
						content: content.toString("utf8"),
						...owner,
						mode: 0o640,
						undo: [offerReload],
					},
					// It may have refused what it could not read until now; it may also go on
					// refusing until the step of the bridges gives it the keys of hosts.
					{ kind: "command", command: offerReload },
				);
			if (!(await hasKeys(configFile)))
				actions.push({
					kind: "command",
					command: [
						...installation.program,
						"keys",
						"add",
						keyName,
						"--config",
						configFile,
					],
					changes: [installation.keysFile],
					shown: true,
				});
			if (actions.length === 0)
				return done(`the user ${user}, ${folder} and a key are there`);
			return todo("the gate has not been set up here yet", actions);
		},
		async prove() {
			const proofs: Proof[] = [];
			const { keysFile } = await loadConfig(configFile);
			const keys = await loadKeys(keysFile);
			proofs.push({
				ok: keys.length > 0,
				says: `${configFile} loads, and ${keysFile} holds ${keys.length} key(s)`,
				advice: "make one with: llamagate keys add NAME",
			});
			return proofs;
		},
	};
}

/** A file that would not load counts as one with keys: setup is not to write over it, and the proof tells of it. */
async function hasKeys(configFile: string): Promise<boolean> {
	const { snapshot } = await takeSnapshot(configFile);
	if (snapshot.kind === "nothing") return false;
	const { keysFile } = await loadConfig(configFile);
	const { snapshot: keys } = await takeSnapshot(keysFile);
	return keys.kind !== "nothing" && (await loadKeys(keysFile)).length > 0;
}
