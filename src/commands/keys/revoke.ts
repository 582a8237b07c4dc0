import { lstat } from "node:fs/promises";
import path from "node:path";
import { changeKeys } from "../../keys/changeKeys.ts";
import type { KeyEntry } from "../../keys/keyFile.ts";
import { readArgs } from "../command.ts";
import {
	findKeys,
	type KeyAction,
	noSuchKey,
	say,
	shared,
	sharedHelp,
} from "./action.ts";
import { readName } from "./rules.ts";
import { tellDaemon } from "./tellDaemon.ts";

export const revoke: KeyAction = {
	help: `
Usage: llamagate keys revoke NAME

Takes a key away. A running daemon is told at once, and cuts its streams within
a second.

${sharedHelp}

Exit codes: 0 done, 1 refused, or a gate that seems to run could not be told,
            2 usage, 78 bad configuration or keys file

Example: llamagate keys revoke phone
`,
	async run(args) {
		const { values, positionals } = readArgs(args, shared, ["NAME"]);
		const name = readName(positionals[0]);
		const places = await findKeys(values.config);
		const { keysFile } = places;
		let secret: string | undefined;
		await changeKeys(keysFile, false, (keys) => {
			const old =
				keys.find((known) => known.name === name) ?? noSuchKey(name, keys);
			const left = keys.filter((known) => known !== old);
			const secretOf = ({ people }: KeyEntry) =>
				people?.jwt &&
				path.resolve(path.dirname(keysFile), people.jwt.secretFile);
			secret = secretOf(old);
			if (left.some((known) => secretOf(known) === secret)) secret = undefined;
			return left;
		});
		if (!values.json) say(`The key ${name} is revoked.`);
		if (secret !== undefined && (await isThere(secret)))
			say(
				`The secret of its app stays in ${secret}; delete it if nothing else uses it.`,
			);
		return tellDaemon(places, values.json ? { revoked: name } : undefined);
	},
};

function isThere(file: string): Promise<boolean> {
	return lstat(file).then(
		() => true,
		() => false,
	);
}
