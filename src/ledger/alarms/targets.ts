import { createHash } from "node:crypto";
import {
	type AlarmForm,
	type AlarmSubject,
	alarmSubjects,
	formOf,
	urlMistake,
} from "../../config/alarms.ts";
import type { Settings } from "../../config/load.ts";
import { readSecretFile } from "../../config/secretFile.ts";
import { BadFileError } from "../../errors.ts";

/** Where alarms go. */
export interface AlarmTarget {
	/** What may be said of it: `ntfy at ntfy.example`. */
	readonly name: string;
	readonly form: AlarmForm;
	/** A secret. */
	readonly url: URL;
	readonly on: ReadonlySet<AlarmSubject>;
}

/**
 * Reads where alarms go, of files too.
 *
 * @throws {BadFileError} if a file cannot be read, if others may read it, or if it holds no address
 */
export async function loadAlarmTargets({
	alarms,
}: Pick<Settings, "alarms">): Promise<AlarmTarget[]> {
	const targets: AlarmTarget[] = [];
	for (const { url, urlFile, form, on } of alarms) {
		const text = url ?? (await readUrl(urlFile ?? "", form));
		const parsed = new URL(text);
		const known = form ?? formOf(parsed);
		targets.push({
			name: `${known} at ${parsed.host}`,
			form: known,
			url: parsed,
			on: new Set(on ?? alarmSubjects),
		});
	}
	return targets;
}

async function readUrl(
	file: string,
	form: AlarmForm | undefined,
): Promise<string> {
	const text = (
		await readSecretFile(
			file,
			"Write the address into it, one line, or take it out of alarms.",
			`run: sudo chmod 640 ${file} && sudo chown root:llamagate ${file}`,
		)
	).trim();
	const mistake = urlMistake(text, form);
	if (mistake !== undefined)
		throw new BadFileError(file, [{ path: "", message: mistake }]);
	return text;
}

/** What tells one list of targets from another. It is shown to nobody: an address may be guessed by it. */
export function markOf(targets: readonly AlarmTarget[]): string {
	const said = targets.map(({ form, url, on }) => [form, url.href, [...on]]);
	return createHash("sha256").update(JSON.stringify(said)).digest("hex");
}
