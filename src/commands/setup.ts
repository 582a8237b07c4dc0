import { styleText } from "node:util";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { type TlsChoice, tls, tlsChoices } from "../host/gate/tlsStep.ts";
import { mostParallel } from "../host/ollama/parallel.ts";
import { allSteps } from "../host/steps.ts";
import { releaseLock, takeLock } from "../lock.ts";
import { nearest } from "../nearest.ts";
import { formatJson } from "../report/json.ts";
import { ActionError, perform, takeBack } from "../setup/change.ts";
import { Journal } from "../setup/journal.ts";
import { asPlanned } from "../setup/plan.ts";
import {
	type Inspection,
	type Proof,
	type Step,
	stepIds,
} from "../setup/step.ts";
import { findInstallation } from "../system/installation.ts";
import { orphansEnd } from "../system/run.ts";
import { lookUpUnit } from "../system/units.ts";
import { visible } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { agree, print, type Session } from "./setupSession.ts";
import { closing, describe, formatPlan, mark } from "./setupText.ts";
import { undo, unreadIn } from "./setupUndo.ts";

const journalFolder = "/var/lib/llamagate/setup";

export const setup: Command = {
	help: `
Usage: sudo llamagate setup [--dry-run] [--yes] [--only STEP] [--skip STEP]
       sudo llamagate setup --tls tailscale|off [--dry-run] [--yes]
       sudo llamagate setup --undo [--dry-run] [--yes]

Looks at this host, shows every change that it would make and why, asks, makes
them, and looks whether each holds. What is in order is left alone, so it can be
run again at any time. What is not on this host (no Docker, no Tailscale) is said
and passed over; without systemd it plans nothing and says so.

  --dry-run         show the plan and change nothing
  --yes             do not ask
  --only STEP       these steps alone; may be given more than once
  --skip STEP       all but these; may be given more than once
  --key-name NAME   the name of the first key (default: first)
  --no-cloud        have Ollama leave ollama.com alone (OLLAMA_NO_CLOUD=1)
  --parallel N      have Ollama work on N requests of a model at once
                    (OLLAMA_NUM_PARALLEL), for N times the memory of a model's
                    context (default: as it is)
  --tls WHAT        this alone: have the gate speak HTTPS with the certificate
                    that tailscaled gets for this node's name (tailscale), or
                    plain HTTP again (off)
  --undo            put back everything that setup has changed, also after a
                    crash half way; what was changed otherwise since stays
  --json            print JSON; needs --yes or --dry-run

Steps, in this order: ${stepIds.join(", ")}

Exit codes: 0 all is in order, 1 something failed, is left to you, or was not
            agreed to, 2 usage, 78 a broken configuration or keys file

Example: sudo llamagate setup --dry-run
         sudo llamagate setup
         sudo llamagate setup --only bridges   (upstreams or state have changed)
`,
	async run(args) {
		const { values } = readArgs(args, {
			"dry-run": { type: "boolean", default: false },
			yes: { type: "boolean", default: false },
			only: { type: "string", multiple: true, default: [] },
			skip: { type: "string", multiple: true, default: [] },
			"key-name": { type: "string", default: "first" },
			"no-cloud": { type: "boolean", default: false },
			parallel: { type: "string" },
			tls: { type: "string" },
			undo: { type: "boolean", default: false },
			json: { type: "boolean", default: false },
		});
		const only = readSteps("only", values.only);
		const skip = readSteps("skip", values.skip);
		const isMeant = (id: string) =>
			(only.length === 0 || only.includes(id)) && !skip.includes(id);
		const parallel = readParallel(values.parallel);
		if (parallel !== undefined && !isMeant("ollama"))
			throw new UsageError(
				"--parallel is for the step ollama, which is left out here",
			);
		const tlsChoice = readTlsChoice(values.tls);
		if (
			tlsChoice !== undefined &&
			(values.undo ||
				values["no-cloud"] ||
				parallel !== undefined ||
				only.length + skip.length > 0)
		)
			throw new UsageError(
				"--tls is done alone; run setup for the rest before or after it",
			);
		// Who names a step means that step, and everything else would be opened.
		if (values.undo && only.length + skip.length > 0)
			throw new UsageError("--undo takes everything back; it knows no steps");
		if (values.json && !values.yes && !values["dry-run"])
			throw new UsageError("--json asks nothing; add --yes or --dry-run");
		if (process.getuid?.() !== 0)
			throw new Finding(
				"only root may look at all of this host and change it; run: sudo llamagate setup",
			);
		const lock = await takeLock("setup", journalFolder);
		if (typeof lock === "string")
			throw new Finding(
				lock === "EADDRINUSE"
					? "another llamagate setup runs on this host; wait for it"
					: `cannot make sure that no other llamagate setup runs (${lock})`,
			);
		try {
			const orphans = await orphansEnd();
			if (orphans.length > 0)
				throw new Finding(
					`an earlier run was cut off, and what it started still runs (process ${orphans.join(", ")}); wait for it or end it`,
				);
			const journal = await Journal.open(journalFolder);
			const session: Session = {
				journal,
				dryRun: values["dry-run"],
				agreed: values.yes,
				json: values.json,
			};
			if (values.undo) return await undo(session);
			// What would be planned without it leads nowhere: a gate that no unit starts, behind a bridge that is none.
			if ((await lookUpUnit("llamagate.service")) === undefined)
				throw new Finding(
					'systemd does not answer here, and setup works through it; nothing was changed. For a host without systemd see docs/install.md, "Without systemd"; for one with it: systemctl status',
				);
			const installation = await findInstallation();
			const steps =
				tlsChoice === undefined
					? allSteps(installation, {
							keyName: values["key-name"],
							noCloud: values["no-cloud"],
							parallel,
						}).filter(({ id }) => isMeant(id))
					: [tls(installation, tlsChoice)];
			return await lockHost(steps, session);
		} finally {
			await releaseLock(lock);
		}
	},
};

/** What is told of a step in JSON. */
interface StepReport {
	readonly id: string;
	readonly title: string;
	readonly why: string;
	state: Inspection["state"] | "changed" | "failed" | "not reached";
	says: string;
	readonly actions: readonly string[];
	readonly notes: readonly string[];
	proofs: readonly Proof[];
}

function readSteps(option: string, names: readonly string[]): string[] {
	return names
		.flatMap((list) => list.split(","))
		.map((name) => {
			if ((stepIds as readonly string[]).includes(name)) return name;
			const near = nearest(name, [...stepIds]);
			throw new UsageError(
				`--${option} ${name}: no such step${near === undefined ? "" : `; did you mean ${near}?`} (${stepIds.join(", ")})`,
			);
		});
}

function readParallel(text: string | undefined): number | undefined {
	if (text === undefined) return undefined;
	const number = /^[1-9]\d{0,3}$/.test(text) ? Number(text) : Number.NaN;
	if (!(number <= mostParallel))
		throw new UsageError(
			`--parallel ${text}: write a whole number from 1 to ${mostParallel}, such as 4`,
		);
	return number;
}

function readTlsChoice(text: string | undefined): TlsChoice | undefined {
	if (text === undefined) return undefined;
	const choice = tlsChoices.find((one) => one === text);
	if (choice === undefined)
		throw new UsageError(`--tls ${text}: write tailscale or off`);
	return choice;
}

async function lockHost(
	steps: readonly Step[],
	session: Session,
): Promise<number> {
	const { journal, dryRun, json } = session;
	const say = json ? () => {} : print;
	const stays = unreadIn(journal);
	for (const line of stays) say(`${visible(line)}\n`);
	if (!dryRun && journal.cutOff.length > 0) {
		say("An earlier run was cut off in the middle of a step:\n");
		stays.push(...(await takeBackCutOff(session, say)));
	}

	const plan: { step: Step; inspection: Inspection }[] = [];
	const reports: StepReport[] = [];
	for (const step of steps) {
		const inspection = await asPlanned(await step.inspect());
		plan.push({ step, inspection });
		reports.push({
			id: step.id,
			title: step.title,
			why: step.why,
			state: inspection.state,
			says: inspection.says,
			actions: inspection.actions.map(describe),
			notes: inspection.notes,
			proofs: [],
		});
		say(await formatPlan(step, inspection));
	}
	let key: string | undefined;
	const report = (applied: boolean, code: number) => {
		if (json)
			print(
				formatJson({
					applied,
					ok: code === 0,
					...(key === undefined ? {} : { key }),
					...(stays.length === 0 ? {} : { left: stays }),
					steps: reports,
				}),
			);
		return code;
	};
	const left = plan.some(({ inspection }) => inspection.state === "unsafe");
	const changes = plan.flatMap(({ inspection }) => inspection.actions).length;
	if (dryRun) {
		say(
			changes === 0
				? "Nothing to do.\n"
				: `${changes} change(s) would be made. Nothing was changed.\n`,
		);
		return report(false, left ? exitCodes.finding : exitCodes.ok);
	}
	if (
		changes > 0 &&
		!(await agree(`Make these ${changes} changes?`, session))
	) {
		say("Nothing was changed.\n");
		return report(false, exitCodes.finding);
	}

	for (const [index, { step, inspection }] of plan.entries()) {
		const own = reports[index];
		if (own === undefined || !["done", "todo"].includes(inspection.state))
			continue;
		say(`\n${styleText("bold", step.title)} (${step.id})\n`);
		const failure = await carryOut(step, inspection, session, say, (shown) => {
			key = shown.trim();
			say(
				`\n  ${styleText("bold", "The first key, shown this once. Store it now:")}\n\n  ${key}\n\n`,
			);
		});
		const proofs = failure === undefined ? await step.prove() : [];
		own.proofs = proofs;
		for (const proof of proofs)
			say(
				`  ${proof.isPending ? styleText("yellow", "..") : mark(proof.ok)} ${visible(proof.says)}\n`,
			);
		const broken = proofs.find(({ ok }) => !ok);
		if (failure === undefined && broken === undefined) {
			if (inspection.state === "todo") own.state = "changed";
			continue;
		}
		own.state = "failed";
		own.says = failure ?? broken?.says ?? "";
		for (const other of reports.slice(index + 1))
			if (other.state === "todo") other.state = "not reached";
		say(
			`\n${styleText("red", "Stopped")} at the step ${step.id}. ${visible(failure ?? `What to do: ${broken?.advice ?? "see above"}`)}\nThen run this again; "llamagate setup --undo" takes everything back.\n`,
		);
		return report(true, exitCodes.finding);
	}
	const unsafe = plan.filter(({ inspection }) => inspection.state === "unsafe");
	say(await closing(unsafe, journal, key));
	return report(changes > 0, left ? exitCodes.finding : exitCodes.ok);
}

/** @returns why it failed; the step has been taken back then */
async function carryOut(
	step: Step,
	{ actions }: Inspection,
	session: Session,
	say: (text: string) => void,
	show: (shown: string) => void,
): Promise<string | undefined> {
	const { journal } = session;
	if (actions.length === 0) return undefined;
	await journal.beginStep(step.id);
	try {
		for (const action of actions) {
			await perform(action, step.id, journal, show);
			say(`  ${mark(true)} ${describe(action)}\n`);
		}
		await journal.endStep();
		return undefined;
	} catch (error) {
		if (!(error instanceof ActionError || isOfTheSystem(error))) throw error;
		say(`  ${mark(false)} ${visible(error.message)}\n`);
		// A step that is half done may be worse than none.
		const left = await takeBackCutOff(session, say);
		return [error.message, "The step was taken back.", ...left].join("\n");
	}
}

/**
 * Takes back the step that failed, or that an earlier run was cut off in: a plan
 * starts from whole steps.
 *
 * @returns what could not be taken back, or is not as it was
 */
async function takeBackCutOff(
	{ journal }: Session,
	say: (text: string) => void,
): Promise<string[]> {
	const { cutOff } = journal;
	const all: string[] = [];
	for (const entry of cutOff) {
		const { left } = await takeBack(entry, journal);
		say(`  ${mark(left.length === 0)} taken back: ${describe(entry.action)}\n`);
		for (const rest of left) say(`      ${visible(rest)}\n`);
		all.push(...left);
	}
	if (cutOff.length > 0) await journal.endStep();
	return all;
}

/** Whether the operating system refused something: the disk is full, a folder is not there. */
function isOfTheSystem(error: unknown): error is NodeJS.ErrnoException {
	return error instanceof Error && "syscall" in error;
}
