import { takeSnapshot } from "../../setup/snapshot.ts";
import type { Unit } from "../../system/units.ts";

export const ownFolder = "/etc/systemd/system";
/** Where packages put theirs. */
export const packagedFolders = [
	"/lib/systemd/system",
	"/usr/lib/systemd/system",
];

/** Where a unit of the gate's comes from. */
export interface UnitFile {
	readonly name: string;
	readonly isMasked: boolean;
	/** What a file of its name in /etc/systemd/system holds. */
	readonly own: string | undefined;
	/** Whether the package has brought one. */
	readonly isPackaged: boolean;
}

export async function findUnitFile({
	name,
	isMasked,
}: Pick<Unit, "name" | "isMasked">): Promise<UnitFile> {
	return { name, isMasked, ...(await whoseUnit(name)) };
}

/** Whose file a unit has: one ahead of the package's, the package's, both or none. */
export async function whoseUnit(
	name: string,
): Promise<Pick<UnitFile, "own" | "isPackaged">> {
	const [own, ...packaged] = await Promise.all(
		[ownFolder, ...packagedFolders].map(
			async (folder) => (await takeSnapshot(`${folder}/${name}`)).content,
		),
	);
	return {
		own: own?.toString("utf8"),
		isPackaged: packaged.some((content) => content !== undefined),
	};
}

/** What is to be done about units' files. */
export interface UnitFilePlan {
	/** Names of those that are setup's to write. */
	readonly write: readonly string[];
	/** What a person has decided, and stays. */
	readonly notes: readonly string[];
	/** Why the gate cannot run with that; `undefined` if it can. */
	readonly obstacle: string | undefined;
}

/**
 * Each by itself: the package has its own, the others are setup's to write. What
 * a person has masked or put ahead of the package's is left to them.
 *
 * @param contents what setup would write, by name
 * @param required names of those without which the gate does not run
 */
export function planUnitFiles(
	files: readonly UnitFile[],
	contents: ReadonlyMap<string, string>,
	required: readonly string[],
): UnitFilePlan {
	const masked = files.filter(({ isMasked }) => isMasked);
	const missed = masked.filter(({ name }) => required.includes(name));
	const ahead = files.filter(
		({ isPackaged, own, isMasked }) =>
			isPackaged && own !== undefined && !isMasked,
	);
	const places = ahead.map(({ name }) => `${ownFolder}/${name}`).join(" ");
	return {
		write: files
			.filter(
				({ name, isPackaged, isMasked, own }) =>
					!isPackaged && !isMasked && own !== contents.get(name),
			)
			.map(({ name }) => name),
		notes: [
			...(masked.length === 0
				? []
				: [
						`Masked, and it stays so: ${listed(masked)}. To change that: sudo systemctl unmask ${spaced(masked)}`,
					]),
			...(ahead.length === 0
				? []
				: [
						`Used in place of the package's, and left as it is: ${places}. To have the package's: sudo rm ${places} && sudo systemctl daemon-reload`,
					]),
		],
		obstacle:
			missed.length === 0
				? undefined
				: `${listed(missed)} is masked, and the gate does not run without it; run: sudo systemctl unmask ${spaced(missed)}`,
	};
}

const listed = (files: readonly UnitFile[]) =>
	files.map(({ name }) => name).join(", ");
const spaced = (files: readonly UnitFile[]) =>
	files.map(({ name }) => name).join(" ");
