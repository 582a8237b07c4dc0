import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { testedOllama } from "../../ollama/testedVersion.ts";
import { askEach, knock } from "../../system/httpProbe.ts";
import { advisoriesAsOf, advisoriesFor, isNewerThan } from "./advisories.ts";
import { readVersion, says } from "./listening.ts";
import { lookForOllama } from "./servers.ts";
import { isTrue, runningServers } from "./settings.ts";

/** One place where an Ollama is to answer, and what it said there. */
interface Told {
	readonly where: string;
	/** `undefined` where it did not answer with 200. */
	readonly body: string | undefined;
	readonly said: string;
}

/** Asks every Ollama that can be asked from here. */
export async function askOllamas(
	patient: Patient,
	path: string,
): Promise<readonly Told[]> {
	const { places } = await lookForOllama(patient);
	return askEach(places, async ({ address, port: at }) => {
		const came = await knock(address, at, path);
		const where = formatHostPort(address, at);
		return {
			where,
			body:
				came.kind === "answer" && came.status === 200 ? came.body : undefined,
			said: `${where}${path}: ${says(came)}`,
		};
	});
}

/** Judges the version of every Ollama that can be asked, and says the worst. */
export async function examineVersions(
	patient: Patient,
	judge: (version: string | undefined, where: string) => Outcome,
): Promise<Outcome> {
	const told = await askOllamas(patient, "/api/version");
	const { unasked } = await lookForOllama(patient);
	const outcomes = [
		...told.map(({ where, body, said }) =>
			body === undefined ? unknown(said) : judge(readVersion(body), where),
		),
		...unasked.map(({ pid }) =>
			unknown(
				`process ${pid} is an Ollama in a network of its own, and is not to be asked from here`,
			),
		),
	];
	for (const state of ["finding", "unknown", "ok"] as const) {
		const such = outcomes.filter((outcome) => outcome.state === state);
		const evidence = unique(such.flatMap((outcome) => outcome.evidence));
		if (such.length > 0) return { state, evidence };
	}
	return absent("no Ollama listens here");
}

/** What is known of the version that an Ollama says it is. */
export function judgeVersion(
	version: string | undefined,
	where: string,
): Outcome {
	const known = version === undefined ? undefined : advisoriesFor(version);
	if (version === undefined || known === undefined)
		return unknown(`${where} does not say a version that can be compared`);
	const running = `Ollama ${version} answers on ${where}`;
	const table = `compared with what was known on ${advisoriesAsOf}; what came to light later is not in it`;
	return known.length === 0
		? ok(running, table)
		: finding([
				`${running}; ${known.map(({ id }) => id).join(", ")} is mended in ${known[0]?.fixed} at the latest`,
				...known.map(
					({ id, says, fixed, source }) =>
						`${id}: ${says}; mended in ${fixed} (${source})`,
				),
				table,
			]);
}

/** Whether a version is one that llamagate was tested with, or older. */
export function judgeTested(
	version: string | undefined,
	where: string,
): Outcome {
	const isNewer =
		version === undefined ? undefined : isNewerThan(version, testedOllama);
	if (version === undefined || isNewer === undefined)
		return unknown(`${where} does not say a version that can be compared`);
	const running = `Ollama ${version} answers on ${where}`;
	const tested = `llamagate was tested with Ollama ${testedOllama} at the newest`;
	return isNewer
		? finding([`${running}; ${tested}`])
		: ok(`${running}; ${tested}`);
}

export async function examineCloud(patient: Patient): Promise<Outcome> {
	const told = (await askOllamas(patient, "/api/status")).map((one) => ({
		...one,
		isOff: one.body === undefined ? undefined : readCloud(one.body),
	}));
	const { unasked } = await lookForOllama(patient);
	const say = ({ where, isOff }: (typeof told)[0]) =>
		`${where}/api/status says that cloud features are ${isOff ? "off" : "on"}`;
	const open = told.filter(({ isOff }) => isOff === false);
	if (open.length > 0) return finding(open.map(say));
	if (told.length === 0 && unasked.length === 0)
		return absent("no Ollama listens here");
	if (unasked.length === 0 && told.every(({ isOff }) => isOff))
		return ok(...told.map(say));
	// Versions before /api/status: what the process was started with.
	const servers = await runningServers(patient);
	if (!Array.isArray(servers)) return servers as Outcome;
	const on: string[] = [];
	for (const { pid, environment } of servers) {
		if (environment === undefined)
			return unknown(
				"Ollama does not say it, and only root can see its environment",
			);
		const value = environment.get("OLLAMA_NO_CLOUD");
		if (value === undefined || !isTrue(value))
			on.push(`process ${pid} runs without OLLAMA_NO_CLOUD`);
	}
	return on.length > 0 ? finding(on) : ok("OLLAMA_NO_CLOUD is set");
}

function readCloud(body: string): boolean | undefined {
	try {
		const { cloud } = JSON.parse(body) as { cloud?: { disabled?: unknown } };
		return typeof cloud?.disabled === "boolean" ? cloud.disabled : undefined;
	} catch {
		return undefined;
	}
}
