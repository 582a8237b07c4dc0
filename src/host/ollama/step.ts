import { isTailscaleAddress } from "../../net/ranges.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	absent,
	done,
	type Inspection,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import type { Installation } from "../../system/installation.ts";
import { outputOf } from "../../system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	listeningSockets,
} from "../../system/sockets.ts";
import { lookUpUnit, type Unit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { isFirstConfig } from "../gate/firstConfig.ts";
import { offerReload } from "../gate/reloadGate.ts";
import {
	describeDialer,
	loopbackDialers,
	tunnelFix,
} from "../tailscale/userspace.ts";
import {
	countKeys,
	followParallel,
	offerParallel,
	parallelToCome,
	parallelVariable,
} from "./parallel.ts";

const port = 11434;
const host = `127.0.0.1:${port}`;
/** Where setup holds Ollama. */
export const ollamaAddress = host;
const folder = "/etc/systemd/system/ollama.service.d";
/** Of the drop-ins that set the same variable, the last by name wins; `systemctl edit` writes override.conf. */
const dropIn = `${folder}/zz-llamagate.conf`;

/** What a person may choose of Ollama. */
interface Chosen {
	/** Whether it is to leave ollama.com alone. */
	readonly noCloud: boolean;
	/** How many requests of a model it is to work on at once; `undefined` for as it is. */
	readonly parallel: number | undefined;
}

function dropInText({ noCloud, parallel }: Chosen): string {
	return `# Written by "llamagate setup": Ollama stays on loopback, and the gate is the way in.
[Service]
Environment="OLLAMA_HOST=${host}"
${noCloud ? 'Environment="OLLAMA_NO_CLOUD=1"\n' : ""}${parallel === undefined ? "" : `Environment="${parallelVariable}=${parallel}"\n`}`;
}

/** Ollama on loopback, whatever it was told before. */
export function ollama(installation: Installation, chosen: Chosen): Step {
	const { noCloud, parallel } = chosen;
	return {
		id: "ollama",
		title: "Ollama on loopback only",
		why: "Ollama lets everybody in who reaches it, so only this host may.",
		async inspect() {
			const unit = await lookUpUnit("ollama.service");
			const open = await openSockets();
			if (unit === undefined || !unit.exists) {
				if (open.length > 0)
					return unsafe(
						`${open.map(formatSocket).join(" and ")} is open and not a service that setup could change; give that program OLLAMA_HOST=${host} (in a container: publish 127.0.0.1:${port}:${port})`,
					);
				return absent(
					"ollama.service does not exist; install Ollama and run this again",
				);
			}
			const notes = notesOn(unit);
			for (const name of [
				"OLLAMA_HOST",
				...(parallel === undefined ? [] : [parallelVariable]),
			]) {
				const overriding = await overridingFile(unit, name);
				if (overriding !== undefined)
					return unsafe(
						`${overriding} sets ${name}, and it counts more than any drop-in; take that line out of it`,
						notes,
					);
			}
			const kept = await chosenBefore();
			const content = dropInText({
				noCloud: noCloud || kept.noCloud,
				parallel: parallel ?? kept.parallel,
			});
			const { snapshot, content: before } = await takeSnapshot(dropIn);
			const written =
				snapshot.kind === "file" && before?.toString() === content;
			const inForce =
				unit.environment.get("OLLAMA_HOST") === host &&
				(!noCloud || unit.environment.get("OLLAMA_NO_CLOUD") === "1") &&
				(parallel === undefined ||
					unit.environment.get(parallelVariable) === String(parallel));
			const past = await waysPastLoopback();
			const isHeld = written && inForce && open.length === 0;
			const { actions: inConfig, ...queue } = await followInConfig(
				installation,
				await parallelToCome(host, parallel),
				{
					isChosen: parallel !== undefined,
					isDecided: (parallel ?? kept.parallel) !== undefined,
				},
			);
			notes.push(...queue.notes);
			if (isHeld && past.length > 0)
				return unsafe(`${past.join("; ")}. To mend it, ${tunnelFix}`, notes);
			if (isHeld)
				return inConfig.length > 0
					? todo(queue.says, inConfig, notes)
					: done(`${dropIn} holds Ollama on ${host}`, notes);
			const apply = [
				["systemctl", "daemon-reload"],
				["systemctl", "try-restart", "ollama.service"],
			];
			const { snapshot: directory } = await takeSnapshot(folder);
			return todo(
				open.length > 0
					? `Ollama is open to others: ${open.map(formatSocket).join(", ")}`
					: unit.environment.get("OLLAMA_HOST") === host &&
							parallel !== undefined
						? `Ollama is on loopback, and is to work on ${parallel} requests of a model at once`
						: `Ollama is on loopback, and ${dropIn} does not hold it there`,
				[
					...(directory.kind === "directory" ? [] : [rootDirectory(folder)]),
					rootFile(dropIn, content, apply),
					...apply.map((command) => ({ kind: "command" as const, command })),
					...inConfig,
				],
				[
					...past.map(
						(line) =>
							`${line}. Loopback alone does not hold them off, and setup stops here until that is mended: ${tunnelFix}`,
					),
					...notes,
				],
			);
		},
		async prove() {
			const proofs: Proof[] = [];
			const unit = await lookUpUnit("ollama.service");
			if (unit?.isActive) {
				const answers = await becomesTrue(answersOnLoopback);
				proofs.push({
					ok: answers,
					says: answers
						? `Ollama answers on ${host}`
						: `Ollama does not answer on ${host}`,
					advice: "see: journalctl -u ollama -n 50",
				});
			}
			const open = await openSockets();
			proofs.push({
				ok: open.length === 0,
				says:
					open.length === 0
						? `nobody else holds port ${port} open, nor does an Ollama any other`
						: `open to others: ${open.map(formatSocket).join(", ")}`,
				advice: `find out who starts that program, and give it OLLAMA_HOST=127.0.0.1:PORT`,
			});
			for (const says of await waysPastLoopback())
				proofs.push({ ok: false, says, advice: tunnelFix });
			// One that does not run now is to be on loopback when it does.
			if (unit?.exists)
				proofs.push({
					ok: unit.environment.get("OLLAMA_HOST") === host,
					says: `systemd starts Ollama with OLLAMA_HOST=${unit.environment.get("OLLAMA_HOST") ?? ""}`,
					advice: `another drop-in says otherwise; see: systemctl cat ollama`,
				});
			if (parallel !== undefined)
				proofs.push({
					ok: unit?.environment.get(parallelVariable) === String(parallel),
					says: `systemd starts Ollama with ${parallelVariable}=${unit?.environment.get(parallelVariable) ?? ""}`,
					advice: "another drop-in says otherwise; see: systemctl cat ollama",
				});
			return proofs;
		},
	};
}

/**
 * What is to be done to a configuration that is there for the gate's queue to
 * count on as many requests at once as Ollama will work on.
 *
 * @param isChosen whether this run was told the number, and `isDecided` whether
 *   any run was
 */
async function followInConfig(
	{ configFile, user }: Installation,
	parallel: number | undefined,
	{ isChosen, isDecided }: { isChosen: boolean; isDecided: boolean },
): Promise<Pick<Inspection, "says" | "actions" | "notes">> {
	const nothing = { says: "", actions: [], notes: [] };
	const { snapshot, content } = await takeSnapshot(configFile);
	if (snapshot.kind === "nothing" || parallel === undefined) return nothing;
	const text = content?.toString("utf8") ?? "";
	const changed = followParallel(
		text,
		parallel,
		isChosen || isFirstConfig(text),
	);
	const keys = await countKeys(configFile);
	const notes =
		keys > 1 && parallel === 1 && !isDecided ? [offerParallel(keys)] : [];
	if (changed === undefined) return { ...nothing, notes };
	const says = `Ollama works on ${parallel} request(s) of a model at once, and queue.parallel in ${configFile} does not say so`;
	// Without the group this is not an installation of setup's: who else reads the file is not known.
	if (
		changed === null ||
		snapshot.kind !== "file" ||
		(await outputOf("getent", "group", user)) === undefined
	)
		return {
			...nothing,
			notes: [...notes, `${says}; write ${parallel} there`],
		};
	return {
		says,
		notes,
		actions: [
			{
				kind: "file",
				path: configFile,
				content: changed,
				user: "root",
				group: user,
				mode: 0o640,
				undo: [offerReload],
			},
			{ kind: "command", command: offerReload },
		],
	};
}

/**
 * What others could reach of Ollama: the port's sockets but for loopback's and the
 * gate's, which is held to an interface; and those of an Ollama on another port.
 */
async function openSockets() {
	return (await listeningSockets()).filter(
		(socket) =>
			(socket.port === port || socket.programs.includes("ollama")) &&
			!isLocalOnly(socket) &&
			!(
				socket.device !== undefined &&
				isTailscaleAddress(socket.address) &&
				!socket.programs.includes("ollama")
			),
	);
}

/** Ways by which other devices get to what is on loopback; see LoopbackDialer. */
async function waysPastLoopback(): Promise<string[]> {
	const { dialers } = await loopbackDialers();
	return dialers
		.filter(({ isElsewhere }) => !isElsewhere)
		.map(
			(dialer) =>
				`${describeDialer(dialer)}: on ${host} every device that the tailnet's policy lets through gets Ollama, without a key`,
		);
}

async function answersOnLoopback(): Promise<boolean> {
	try {
		const { ok, body } = await fetch(`http://${host}/api/version`, {
			signal: AbortSignal.timeout(2_000),
		});
		await body?.cancel();
		return ok;
	} catch {
		return false;
	}
}

/** What an earlier run was told, which holds until another is told otherwise. */
async function chosenBefore(): Promise<Chosen> {
	const { content } = await takeSnapshot(dropIn);
	const text = content?.toString() ?? "";
	const parallel = new RegExp(`${parallelVariable}=(\\d+)"`).exec(text)?.[1];
	return {
		noCloud: text.includes("OLLAMA_NO_CLOUD=1"),
		parallel: parallel === undefined ? undefined : Number(parallel),
	};
}

async function overridingFile(
	unit: Unit,
	name: string,
): Promise<string | undefined> {
	const sets = new RegExp(`^\\s*(export\\s+)?${name}\\s*=`, "m");
	for (const file of unit.environmentFiles) {
		const text = await outputOf("cat", file);
		if (sets.test(text ?? "")) return file;
	}
	return undefined;
}

function notesOn({ environment }: Unit): string[] {
	const notes: string[] = [];
	if (environment.has("OLLAMA_API_KEY"))
		notes.push(
			"OLLAMA_API_KEY is set for Ollama's service. It protects nothing: Ollama never asks for it, it only shows it to ollama.com. You can take it out; keys for this host are llamagate's.",
		);
	if ((environment.get("OLLAMA_ORIGINS") ?? "").includes("*"))
		notes.push(
			"OLLAMA_ORIGINS has a *, so any web page that is open on this host may use Ollama. Browsers reach llamagate by its own cors.origins; take this one out.",
		);
	return notes;
}
