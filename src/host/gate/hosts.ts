import { bridgesVariable } from "../../config/bridges.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { loadRules } from "../../gate/rules.ts";
import { lookUpUnit } from "../../system/units.ts";
import { type Tried, tryOut } from "../../upstream/hosts/tryOut.ts";
import { gateService } from "./inspect.ts";

/** Every host, asked once; why it cannot be; or `undefined` where there is one Ollama. */
const tried = oncePerLook(
	async ({ configFile }): Promise<readonly Tried[] | string | undefined> => {
		try {
			// As the gate itself does: what only root reaches helps nobody.
			const unit = await lookUpUnit(gateService);
			const { settings, hostKeys } = await loadRules(
				configFile,
				unit?.environment.get(bridgesVariable),
			);
			return (
				settings.hosts &&
				(await Promise.all(
					settings.hosts.map((host) =>
						tryOut(host, settings.upstream, hostKeys.get(host.name)),
					),
				))
			);
		} catch (error) {
			if (error instanceof BadFileError) return error.message;
			throw error;
		}
	},
);

/** Whether each host answers this gate. */
export async function examineHosts(patient: Patient): Promise<Outcome> {
	return judgeHosts(
		await tried(patient),
		({ why }) => why !== undefined,
		({ name, url, why, models }) =>
			`${name} (${url}) ${why === undefined ? `answers, and has ${models} model(s)` : `is of no use: ${why}`}`,
	);
}

/** Whether each host that this gate has a key for asks for one. */
export async function examineBareHosts(patient: Patient): Promise<Outcome> {
	return judgeHosts(
		await tried(patient),
		({ isBare }) => isBare,
		({ name, url, isBare }) =>
			`${name} (${url}) ${isBare ? "answers without a key: anyone who reaches it has all of it" : "answers nobody without a key, or is on this machine"}`,
	);
}

/** @param all what was tried, or why it was not */
export function judgeHosts(
	all: readonly Tried[] | string | undefined,
	isBad: (host: Tried) => boolean,
	say: (host: Tried) => string,
): Outcome {
	if (all === undefined) return absent("there is one upstream");
	if (typeof all === "string") return unknown(all);
	const bad = all.filter(isBad);
	return bad.length > 0 ? finding(bad.map(say)) : ok(...all.map(say));
}
