import { isTailscaleAddress } from "../../net/ranges.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	absent,
	done,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import { outputOf } from "../../system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	listeningSockets,
} from "../../system/sockets.ts";
import { lookUpUnit, type Unit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import {
	describeDialer,
	loopbackDialers,
	tunnelFix,
} from "../tailscale/userspace.ts";

const port = 11434;
const host = `127.0.0.1:${port}`;
const folder = "/etc/systemd/system/ollama.service.d";
/** Of the drop-ins that set the same variable, the last by name wins; `systemctl edit` writes override.conf. */
const dropIn = `${folder}/zz-llamagate.conf`;

function dropInText(noCloud: boolean): string {
	return `# Written by "llamagate setup": Ollama stays on loopback, and the gate is the way in.
[Service]
Environment="OLLAMA_HOST=${host}"
${noCloud ? 'Environment="OLLAMA_NO_CLOUD=1"\n' : ""}`;
}

/** Ollama on loopback, whatever it was told before. */
export function ollama(noCloud: boolean): Step {
	return {
		id: "ollama",
		title: "Ollama on loopback only",
		why: "Ollama lets everybody in who reaches it, so nothing but this host may.",
		async inspect() {
			const unit = await lookUpUnit("ollama.service");
			const open = await openSockets();
			if (unit === undefined || !unit.exists) {
				if (open.length > 0)
					return unsafe(
						`${open.map(formatSocket).join(" and ")} is open and not a service that setup could change; give that program OLLAMA_HOST=${host} (in a container: publish 127.0.0.1:${port}:${port})`,
					);
				return absent(
					"there is no ollama.service; install Ollama and run this again",
				);
			}
			const notes = notesOn(unit);
			const overriding = await overridingFile(unit);
			if (overriding !== undefined)
				return unsafe(
					`${overriding} sets OLLAMA_HOST, and it counts more than any drop-in; take that line out of it`,
					notes,
				);
			const content = dropInText(noCloud || (await saysNoCloud()));
			const { snapshot, content: before } = await takeSnapshot(dropIn);
			const written =
				snapshot.kind === "file" && before?.toString() === content;
			const inForce =
				unit.environment.get("OLLAMA_HOST") === host &&
				(!noCloud || unit.environment.get("OLLAMA_NO_CLOUD") === "1");
			const past = await waysPastLoopback();
			if (written && inForce && open.length === 0)
				return past.length > 0
					? unsafe(`${past.join("; ")}. To mend it, ${tunnelFix}`, notes)
					: done(`${dropIn} holds Ollama on ${host}`, notes);
			const apply = [
				["systemctl", "daemon-reload"],
				["systemctl", "try-restart", "ollama.service"],
			];
			const { snapshot: directory } = await takeSnapshot(folder);
			return todo(
				open.length > 0
					? `Ollama is open to others: ${open.map(formatSocket).join(", ")}`
					: `Ollama is on loopback, and ${dropIn} does not hold it there`,
				[
					...(directory.kind === "directory" ? [] : [rootDirectory(folder)]),
					rootFile(dropIn, content, apply),
					...apply.map((command) => ({ kind: "command" as const, command })),
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
			return proofs;
		},
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

async function saysNoCloud(): Promise<boolean> {
	const { content } = await takeSnapshot(dropIn);
	return content?.includes("OLLAMA_NO_CLOUD=1") ?? false;
}

async function overridingFile(unit: Unit): Promise<string | undefined> {
	for (const file of unit.environmentFiles) {
		const text = await outputOf("cat", file);
		if (/^\s*(export\s+)?OLLAMA_HOST\s*=/m.test(text ?? "")) return file;
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
