import path from "node:path";
import { askGateOn } from "../../admin/client.ts";
import { loadConfig, type Settings } from "../../config/load.ts";
import { lastResultFile } from "../../doctor/lastResult.ts";
import { ifUsable } from "../../errors.ts";
import { request } from "../../net/http.ts";
import { tailscaleAddressesOf } from "../../net/listener.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	type Action,
	done,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import {
	type Installation,
	readPackaged,
	unfitPlace,
	withPaths,
} from "../../system/installation.ts";
import { listeningSockets } from "../../system/sockets.ts";
import { lookUpUnit, lookUpUnits } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { alarmsDropIn } from "./alarms.ts";
import {
	databaseObstacle,
	dropInOf,
	endLedger,
	ledgerDropIn,
	ledgerUnit,
} from "./ledgerUnit.ts";
import { findUnitFile, ownFolder, planUnitFiles } from "./unitFiles.ts";

const doctorTimer = "llamagate-doctor.timer";
/** What runs from boot on, in the order in which it is started. */
const bootUnits = [
	"llamagate-ollama.socket",
	"llamagate.socket",
	"llamagate.service",
	"llamagate-listen.service",
	doctorTimer,
];
/** All of them. */
export const unitNames = [
	...bootUnits,
	ledgerUnit,
	"llamagate-ollama.service",
	"llamagate-doctor.service",
];
const rootFolder = "/usr/lib/llamagate/root";
/** Root's own way to the gate. */
export const localSocket = "/run/llamagate-local/gate.sock";

/** Where the gate listens, as its follower was told. */
export async function gatePlace(): Promise<{
	readonly device: string;
	readonly port: number;
}> {
	const environment = (await lookUpUnit("llamagate-listen.service"))
		?.environment;
	return {
		device: environment?.get("INTERFACE") ?? "tailscale0",
		port: Number(environment?.get("PORT") ?? 11434),
	};
}

/** The daemon and what leads to it, from boot on. */
export function gate(installation: Installation): Step {
	return {
		id: "gate",
		title: "llamagate from boot on",
		why: "The gate listens on tailscale0 alone, asks for a key, and runs without a network, a shell or a capability of its own.",
		async inspect() {
			const units = await lookUpUnits(unitNames);
			if (units === undefined)
				return unsafe(
					"systemd does not answer here; run llamagate as docs/install.md says for a host without it",
				);
			const settings = await settingsOf(installation.configFile);
			if (settings === "unusable")
				return unsafe(
					`${installation.configFile} does not load; see: llamagate check`,
				);
			const ledger = settings?.ledger;
			const obstacle = await databaseObstacle(ledger);
			if (obstacle !== undefined) return unsafe(obstacle);
			const wanted = ledger ? [...bootUnits, ledgerUnit] : bootUnits;
			const files = await Promise.all(units.map(findUnitFile));
			const isForeign = files.some(({ isPackaged }) => !isPackaged);
			const unfit = isForeign ? await unfitPlace(installation) : undefined;
			if (unfit !== undefined) return unsafe(unfit);
			const contents = await unitContents(installation);
			const plan = planUnitFiles(
				files,
				contents,
				[...wanted, "llamagate-ollama.service"].filter(
					(name) => name !== doctorTimer,
				),
			);
			if (plan.obstacle !== undefined) return unsafe(plan.obstacle);
			const reload = ["systemctl", "daemon-reload"];
			const actions = await writeUnits(plan.write, contents, reload);
			const unwanted =
				settings !== undefined && ledger === undefined
					? endLedger(units.find(({ name }) => name === ledgerUnit))
					: [];
			actions.push(
				...unwanted,
				...(await dropIn(ledgerDropIn, dropInOf(ledger), reload)),
				...(await dropIn(
					alarmsDropIn,
					(settings?.alarms.length ?? 0) > 0
						? await readPackaged(installation, "systemd/llamagate-way-out.conf")
						: "",
					reload,
				)),
			);
			const missing = wanted.filter((name) => {
				const unit = units.find((known) => known.name === name);
				return !unit?.isMasked && (!unit?.isActive || !unit.isEnabled);
			});
			const makesRoot = files.some(
				({ name, isPackaged }) => name === "llamagate.service" && !isPackaged,
			);
			for (const name of missing)
				actions.push({
					kind: "command",
					command: ["systemctl", "enable", "--now", name],
					undo: [
						["systemctl", "disable", "--now", name],
						...(name === "llamagate-ollama.socket"
							? [["systemctl", "stop", "llamagate-ollama.service"]]
							: []),
						// systemd makes mount points in the daemon's root folder, empty files and folders, and links.
						...(name === "llamagate.service" && makesRoot
							? [
									[
										"find",
										rootFolder,
										"-mindepth",
										"1",
										"(",
										"-empty",
										"-o",
										"-type",
										"l",
										")",
										"-delete",
									],
								]
							: []),
						...(name === "llamagate-listen.service"
							? [["rm", "-rf", "/run/systemd/system/llamagate.socket.d"]]
							: []),
						...(name === doctorTimer
							? [
									["systemctl", "stop", "llamagate-doctor.service"],
									["rm", "-f", lastResultFile],
								]
							: []),
					],
				});
			// The gate looks for a ledger at its start alone.
			if (missing.includes(ledgerUnit))
				actions.push({
					kind: "command",
					command: ["systemctl", "try-restart", "llamagate.service"],
				});
			if (actions.length === 0)
				return done("the gate's units are enabled and active", plan.notes);
			return todo(
				missing.length > 0
					? `not running from boot on yet: ${missing.join(", ")}`
					: unwanted.length > 0
						? `${ledgerUnit} is there to run, and the configuration has no ledger any more`
						: "its units are not those of this version",
				actions,
				plan.notes,
			);
		},
		prove: () => proveGate(installation),
	};
}

/** What a configuration says; nothing where there is none yet. */
async function settingsOf(
	configFile: string,
): Promise<Settings | "unusable" | undefined> {
	const { snapshot } = await takeSnapshot(configFile);
	if (snapshot.kind === "nothing") return undefined;
	return (await ifUsable(loadConfig(configFile))) ?? "unusable";
}

/** Every unit as it would be written for this installation, by its name. */
async function unitContents(
	installation: Installation,
): Promise<ReadonlyMap<string, string>> {
	const contents = new Map<string, string>();
	for (const name of unitNames)
		contents.set(
			name,
			withPaths(
				await readPackaged(installation, `systemd/${name}`),
				installation,
			),
		);
	return contents;
}

/** Without the package the units are setup's to write, and the daemon's root folder is to make. */
async function writeUnits(
	names: readonly string[],
	contents: ReadonlyMap<string, string>,
	reload: readonly string[],
): Promise<Action[]> {
	if (names.length === 0) return [];
	const { snapshot } = await takeSnapshot(rootFolder);
	return [
		...(snapshot.kind === "directory"
			? []
			: ["/usr/lib/llamagate", rootFolder].map(rootDirectory)),
		...names.map((name) =>
			rootFile(`${ownFolder}/${name}`, contents.get(name) ?? "", [reload]),
		),
		{ kind: "command", command: reload },
		// The units and what it writes for them belong together.
		{
			kind: "command",
			command: ["systemctl", "try-restart", "llamagate-listen.service"],
		},
	];
}

/** Has the ledger's sandbox lead somewhere, or no longer where there is nothing to write. */
async function dropIn(
	file: string,
	content: string,
	reload: readonly string[],
): Promise<Action[]> {
	const { content: before } = await takeSnapshot(file);
	if ((before?.toString() ?? "") === content) return [];
	const undo = [reload];
	const written: Action[] =
		content === ""
			? [
					{
						kind: "command",
						command: ["rm", file],
						changes: [file],
						undo,
					},
				]
			: [rootDirectory(path.dirname(file)), rootFile(file, content, undo)];
	return [
		...written,
		{ kind: "command", command: reload },
		{ kind: "command", command: ["systemctl", "try-restart", ledgerUnit] },
	];
}

/** What a request over root's own socket is answered with; status 0 without an answer. */
function askGate(method: string, path: string): Promise<number> {
	return new Promise((resolve) => {
		const req = request(
			{ socketPath: localSocket, method, path, timeout: 5_000 },
			(res) => {
				res.resume();
				resolve(res.statusCode ?? 0);
			},
		);
		req.on("error", () => resolve(0));
		req.on("timeout", () => req.destroy());
		req.end();
	});
}

async function proveGate({ configFile }: Installation): Promise<Proof[]> {
	const { admin } = await loadConfig(configFile);
	// First, since the follower takes the gate down for a moment to put its sockets there.
	const proofs = await proveSockets();
	const answers = await becomesTrue(
		async () => (await askGate("GET", "/api/tags")) !== 0,
	);
	if (!answers)
		return [
			...proofs,
			{
				ok: false,
				says: "the gate does not answer",
				advice: "see: journalctl -u llamagate -n 50",
			},
		];
	for (const [method, path] of [
		["GET", "/api/tags"],
		["POST", "/api/chat"],
		["POST", "/v1/chat/completions"],
		["DELETE", "/api/delete"],
	] as const) {
		const status = await askGate(method, path);
		proofs.push({
			ok: status === 401,
			says: `without a key ${method} ${path} is answered ${status}`,
			advice: "this should be 401: do not use the gate, and report it",
		});
	}
	if (admin.socket !== undefined) {
		const asked = await askGateOn(admin.socket);
		const keys = asked.kind === "status" ? asked.status.keys : [];
		proofs.push({
			ok: keys.length > 0,
			says: `the running gate has ${keys.length} key(s) in force`,
			advice: "run: llamagate reload",
		});
	}
	return proofs;
}

/** That the gate's sockets are on the tailnet's addresses; says nothing while there are none. */
async function proveSockets(): Promise<Proof[]> {
	const { device, port } = await gatePlace();
	const addresses = tailscaleAddressesOf(device);
	if (addresses.length === 0) return [];
	const ok = await becomesTrue(async () => {
		const sockets = await listeningSockets();
		return addresses.every((address) =>
			sockets.some(
				(socket) =>
					socket.address === address &&
					socket.device === device &&
					socket.port === port,
			),
		);
	});
	const where = addresses.map((address) => `${address} port ${port}`);
	return [
		{
			ok,
			says: ok
				? `the kernel has its sockets on ${where.join(" and ")}, held to ${device}`
				: `nothing listens on ${where.join(" and ")}`,
			advice:
				"see: systemctl status llamagate.socket llamagate-listen; a program that holds the port on all addresses keeps the gate from it",
		},
	];
}
