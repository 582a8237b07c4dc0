import { loadConfig } from "../../config/load.ts";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { lookUpUnit } from "../../system/units.ts";
import { visible } from "../../visible.ts";
import { nextValue } from "./environment.ts";
import {
	bind,
	examineListening,
	examineReachable,
	readVersion,
} from "./listening.ts";
import { parallelVariable, readParallel } from "./parallel.ts";
import { lookForOllama } from "./servers.ts";
import {
	examineHost,
	examineRestart,
	examineVariable,
	isTrue,
	openOrigins,
	sayUnreadable,
} from "./settings.ts";
import {
	askOllamas,
	examineCloud,
	examineVersions,
	judgeTested,
	judgeVersion,
} from "./versions.ts";

const group = "ollama";

const layer = "ollama";

export const ollamaExaminations: readonly Examination[] = [
	{
		id: "ollama.listening",
		group,
		layer,
		title: "Ollama listens on loopback only",
		severity: "critical",
		why: "Ollama lets everybody in who reaches it, and a firewall that is wrong for a moment is enough.",
		fix: bind,
		step: "ollama",
		examine: examineListening,
	},
	{
		id: "ollama.reachable",
		group,
		layer,
		title: "No other device gets an answer from Ollama itself",
		severity: "critical",
		why: "Anyone who gets one has all of Ollama without a key: at an address of this host other than loopback, where Docker or a rule of the kernel's (DNAT) leads, or by a tailscaled that dials loopback for its peers.",
		fix: bind,
		step: "ollama",
		examine: examineReachable,
	},
	{
		id: "ollama.tunnels",
		group,
		layer,
		title: "No tunnel leads others to Ollama",
		severity: "critical",
		why: "A program that brings a port of loopback to others (cloudflared, ngrok, ssh -R) goes past the gate and every firewall, to an Ollama that asks for no key.",
		fix: "end that program, or have it lead to the gate's address in place of Ollama's, where a key is asked for",
		needsRoot: true,
		examine: async (patient) =>
			(await import("./tunnels.ts")).examineTunnels(patient),
	},
	{
		id: "ollama.host",
		group,
		layer,
		title: "The running Ollama was told to listen on loopback",
		severity: "high",
		why: "OLLAMA_HOST of the running process decides, not what its unit says since.",
		fix: `${bind}; where the unit is right already: sudo systemctl restart ollama`,
		step: "ollama",
		needsRoot: true,
		examine: examineHost,
	},
	{
		id: "ollama.restart",
		group,
		layer,
		title: "Ollama stays on loopback when it starts again",
		severity: "high",
		why: "A changed unit or drop-in takes effect at the next restart or boot, when nobody looks.",
		fix: bind,
		step: "ollama",
		examine: examineRestart,
	},
	{
		id: "ollama.api-key",
		group,
		layer,
		title: "No OLLAMA_API_KEY pretends to protect the server",
		severity: "warn",
		why: "Ollama's server never asks for that key, it only shows it to ollama.com, so it gives false safety.",
		fix: "take OLLAMA_API_KEY out of what sets it (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_API_KEY", () => [
				"OLLAMA_API_KEY is set, and anybody who reaches Ollama needs no key all the same",
			]),
	},
	{
		id: "ollama.origins",
		group,
		layer,
		title: "Ollama does not serve every web page",
		severity: "high",
		why: "With * in OLLAMA_ORIGINS any page that a browser on this host opens may use and change Ollama.",
		fix: "take the * out of OLLAMA_ORIGINS (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama; pages use the gate by its cors.origins",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_ORIGINS", (value) => {
				const open = openOrigins(value);
				return open.length === 0
					? undefined
					: [`OLLAMA_ORIGINS lets every page in: ${visible(open.join(", "))}`];
			}),
	},
	{
		id: "ollama.request-log",
		group,
		layer,
		title: "Ollama does not write prompts to disk",
		severity: "warn",
		why: "With OLLAMA_DEBUG_LOG_REQUESTS every prompt is kept in a file.",
		fix: "take OLLAMA_DEBUG_LOG_REQUESTS out (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_DEBUG_LOG_REQUESTS", (value) =>
				isTrue(value) ? [`it is on: ${visible(value)}`] : undefined,
			),
	},
	{
		id: "ollama.version",
		group,
		layer,
		title: "This version of Ollama has no known serious fault",
		severity: "high",
		why: "A key with the scope manage, a program on this host or a model from elsewhere is enough to use most of these.",
		fix: "curl -fsSL https://ollama.com/install.sh | sh",
		examine: (patient) => examineVersions(patient, judgeVersion),
	},
	{
		id: "ollama.tested",
		group,
		layer,
		title: "llamagate was tested with this version of Ollama",
		// A fault of security is often mended in a version that is newer than what was run.
		severity: "info",
		why: "A newer Ollama may have calls, options or replies that this llamagate does not know: what it does not know it refuses, or counts wrongly.",
		fix: "look for a newer llamagate, whose docs/compatibility.md says which Ollama it was tested with",
		examine: (patient) => examineVersions(patient, judgeTested),
	},
	{
		id: "ollama.parallel",
		group,
		layer,
		title: "The gate counts on as many requests at once as Ollama works on",
		severity: "warn",
		why: "Where queue.parallel is less than Ollama's own OLLAMA_NUM_PARALLEL, Ollama idles while requests wait; where it is more, Ollama decides who waits, and first come is first served.",
		fix: bind,
		step: "ollama",
		needsRoot: true,
		examine: examineParallel,
	},
	{
		id: "ollama.cloud",
		group,
		layer,
		title: "Cloud models are off",
		severity: "info",
		why: "With a cloud model a prompt leaves this host for ollama.com, on its owner's account.",
		fix: "sudo llamagate setup --only ollama --no-cloud",
		examine: examineCloud,
	},
];

async function examineParallel(patient: Patient): Promise<Outcome> {
	const { queue } = await loadConfig(patient.configFile);
	if (queue.mode === "off") return absent("queue.mode is off: nothing waits");
	if (queue.parallel === "auto")
		return ok("queue.parallel is auto: the gate finds it out");
	const { servers, gatePort } = await lookForOllama(patient);
	const unit = await lookUpUnit("ollama.service");
	const told = await askOllamas(patient, "/api/version");
	const { body } =
		told.find(({ where }) => where.endsWith(`:${gatePort}`)) ?? {};
	const version = body === undefined ? undefined : readVersion(body);
	const seen: SeenParallel[] = [];
	// A second Ollama is not the one that the gate passes requests on to.
	for (const { pid, sockets, environment } of servers)
		if (sockets.some(({ port }) => port === gatePort)) {
			if (environment === undefined)
				return unknown(`the environment of process ${pid} cannot be read`);
			const value = environment.get(parallelVariable);
			seen.push({
				where: `process ${pid}`,
				value,
				isRunning: true,
				parallel: readParallel(value, version),
			});
		}
	if (unit?.exists) {
		const next = await nextValue(unit, parallelVariable);
		if ("unreadable" in next) return unknown(sayUnreadable(next));
		seen.push({
			where: "the next start",
			isRunning: false,
			value: next.value === "" ? undefined : next.value,
			parallel: readParallel(next.value, version),
		});
	}
	return judgeParallel(queue.parallel, seen);
}

/** What an Ollama has, or is to have, of `OLLAMA_NUM_PARALLEL`, and what it makes of that. */
export interface SeenParallel {
	readonly where: string;
	readonly isRunning: boolean;
	readonly value: string | undefined;
	readonly parallel: number | undefined;
}

/** Whether `queue.parallel` is what Ollama itself goes by, now and after its next start. */
export function judgeParallel(
	configured: number,
	seen: readonly SeenParallel[],
): Outcome {
	if (seen.length === 0)
		return unknown(
			`queue.parallel is ${configured}; what the Ollama behind the gate was started with is not to be seen here`,
		);
	const say = ({ where, value, parallel }: SeenParallel) =>
		`${where}: ${value === undefined ? `no ${parallelVariable}` : `${parallelVariable}=${visible(value.slice(0, 20))}`}${parallel === undefined ? "" : `, which is ${parallel}`}`;
	const other = seen.filter(
		({ parallel }) => parallel !== undefined && parallel !== configured,
	);
	if (other.length > 0)
		return finding([`queue.parallel is ${configured}`, ...seen.map(say)], {
			// What it is to have after a restart is what the gate counts on already.
			...(other.every(({ isRunning }) => isRunning) &&
			seen.some(({ isRunning }) => !isRunning)
				? { fix: "sudo systemctl restart ollama" }
				: {}),
		});
	return seen.some(({ parallel }) => parallel === undefined)
		? unknown(
				...seen.map(say),
				"it does not say its version, by which its own number is known",
			)
		: ok(`queue.parallel is ${configured}`, ...seen.map(say));
}
