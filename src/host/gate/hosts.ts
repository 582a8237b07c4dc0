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
import { loadRules, type Rules } from "../../gate/rules.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { type Tried, tryOut } from "../../upstream/hosts/tryOut.ts";
import { askGate, gateService } from "./inspect.ts";

/** What the gate would read; why it could not. */
const rules = oncePerLook(async ({ configFile }): Promise<Rules | string> => {
	try {
		// As the gate itself does: what only root reaches helps nobody.
		const unit = await lookUpUnit(gateService);
		return await loadRules(configFile, unit?.environment.get(bridgesVariable));
	} catch (error) {
		if (error instanceof BadFileError) return error.message;
		throw error;
	}
});

/** Every host, asked once; why it cannot be; or `undefined` where there is one Ollama. */
const tried = oncePerLook(
	async (patient): Promise<readonly Tried[] | string | undefined> => {
		const loaded = await rules(patient);
		if (typeof loaded === "string") return loaded;
		const { settings, hostKeys } = loaded;
		return (
			settings.hosts &&
			(await Promise.all(
				settings.hosts.map((host) =>
					tryOut(host, settings.upstream, hostKeys.get(host.name)),
				),
			))
		);
	},
);

/** How long a host that answers here may be down to the gate: it asks one again every two seconds. */
const backMs = 6_000;

/** Whether each host answers this gate, and the running gate has found it to. */
export async function examineHosts(patient: Patient): Promise<Outcome> {
	const all = await tried(patient);
	let down = new Map<string, string>();
	if (typeof all === "object")
		await becomesTrue(async () => {
			down = await downToGate(patient);
			return !all.some(({ name, why }) => why === undefined && down.has(name));
		}, backMs);
	return judgeAnswers(all, down);
}

/** The hosts that the running gate calls down, and why. */
async function downToGate(patient: Patient): Promise<Map<string, string>> {
	const asked = await askGate(patient);
	const hosts = asked.kind === "status" ? (asked.status.hosts ?? []) : [];
	return new Map(
		hosts
			.filter(({ state }) => state === "down")
			.map(({ name, why }) => [name, why ?? "it does not say why"]),
	);
}

/**
 * @param all what was tried, with the keys that are stored
 * @param down what the running gate calls down, with the keys that it has read, and why
 */
export function judgeAnswers(
	all: readonly Tried[] | string | undefined,
	down: ReadonlyMap<string, string>,
): Outcome {
	const outcome = judgeHosts(
		all,
		({ name, why }) => why !== undefined || down.has(name),
		({ name, url, why, models }) =>
			`${name} (${url}) ${
				why !== undefined
					? `is of no use: ${why}`
					: down.has(name)
						? `answers to what is stored, and the running gate calls it down: ${down.get(name)}`
						: `answers, and has ${models} model(s)`
			}`,
	);
	const isGatesAlone =
		outcome.state === "finding" &&
		typeof all === "object" &&
		all.every(({ why }) => why === undefined);
	return isGatesAlone ? { ...outcome, fix: "sudo llamagate reload" } : outcome;
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

/** Whether each gate lets this one ask as often as all of its clients may together. */
export async function examineHostLimits(patient: Patient): Promise<Outcome> {
	const loaded = await rules(patient);
	if (typeof loaded === "string") return unknown(loaded);
	const { perKey } = loaded.settings.limits;
	return judgeLimits(await tried(patient), perKey.requestsPerMinute);
}

/**
 * @param all what was tried, or why it was not
 * @param clientsPerMinute how many requests a minute one client of this gate may make
 */
export function judgeLimits(
	all: readonly Tried[] | string | undefined,
	clientsPerMinute: number,
): Outcome {
	const outcome = judgeHosts(
		all,
		// A request can make this gate ask there twice more by itself.
		({ perMinute = Number.POSITIVE_INFINITY }) =>
			perMinute < 4 * clientsPerMinute,
		({ name, url, perMinute }) =>
			`${name} (${url}) ${
				perMinute === undefined
					? "says no limit for this gate"
					: `lets this gate make ${perMinute} requests a minute, of which one client of this gate may make ${clientsPerMinute}`
			}`,
	);
	return outcome.state === "finding"
		? { ...outcome, fix: raiseLimits(clientsPerMinute) }
		: outcome;
}

/**
 * How to let a gate ask there for ten of its clients at once.
 *
 * @param clientsPerMinute how many requests a minute one of them may make; its default where nobody looked
 */
export function raiseLimits(clientsPerMinute = 600): string {
	const perMinute = Math.max(6_000, 10 * clientsPerMinute);
	return `on that host: sudo llamagate keys edit this-gate --requests-per-minute ${perMinute} --concurrent 256, and limits.perSource.requestsPerMinute in its configuration: ${perMinute} too, as docs/hosts.md has it`;
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
