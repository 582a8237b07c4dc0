import { stat } from "node:fs/promises";
import { accountNumber } from "../system/accounts.ts";
import { takeSnapshot } from "./snapshot.ts";
import {
	type Action,
	type DirectoryAction,
	done,
	type Inspection,
	unsafe,
} from "./step.ts";

/**
 * A step's plan as it is to be shown: with what stands now where it writes, so
 * that it is carried out on that or not at all, and without folders whose owner
 * or mode would be changed through a link.
 */
export async function asPlanned(inspection: Inspection): Promise<Inspection> {
	const actions: Action[] = [];
	let satisfied: string | undefined;
	for (const action of inspection.actions) {
		if (action.kind === "command") {
			actions.push(action);
			continue;
		}
		const { snapshot } = await takeSnapshot(action.path);
		if (action.kind === "file") actions.push({ ...action, seen: snapshot });
		else if (snapshot.kind !== "link") actions.push(action);
		else if (await leadsToWanted(action)) satisfied = action.path;
		else
			return unsafe(
				`${action.path} is a link to ${snapshot.target}, and setup gives no owner and mode to what a link leads to; put a folder in its place, or give that one to ${action.user}:${action.group} with mode ${action.mode.toString(8)}, and run this again`,
				inspection.notes,
			);
	}
	return satisfied !== undefined && actions.length === 0
		? done(
				`${satisfied} leads to a folder that is as it should be`,
				inspection.notes,
			)
		: { ...inspection, actions };
}

async function leadsToWanted(wanted: DirectoryAction): Promise<boolean> {
	const stats = await stat(wanted.path).catch(() => undefined);
	return (
		stats?.isDirectory() === true &&
		stats.uid === (await accountNumber("passwd", wanted.user)) &&
		stats.gid === (await accountNumber("group", wanted.group)) &&
		(stats.mode & 0o7777) === wanted.mode
	);
}
