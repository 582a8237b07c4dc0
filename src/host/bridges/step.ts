import path from "node:path";
import { bridgesFolder, withBridges } from "../../config/bridges.ts";
import { loadConfig, type Settings } from "../../config/load.ts";
import { BadFileError } from "../../errors.ts";
import { loadHostKeys } from "../../gate/hostRules.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	type Action,
	absent,
	type CommandAction,
	done,
	type Inspection,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import { accountNumber } from "../../system/accounts.ts";
import {
	type Installation,
	readPackaged,
	withPaths,
} from "../../system/installation.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { tryOut } from "../../upstream/hosts/tryOut.ts";
import { gateService, propertiesOf } from "../gate/inspect.ts";
import { ownFolder, whoseUnit } from "../gate/unitFiles.ts";
import {
	changeableByOthers,
	dropInFile,
	dropInFolder,
	dropInOf,
	findAddress,
	hasOwnNetwork,
	lookAtBridges,
	type MadeBridge,
	madeBridgeNames,
	serviceUnit,
	socketTrouble,
	socketUnit,
	type WantedBridge,
	wantedBridges,
} from "./inspect.ts";
import { guard, secretsOf } from "./secrets.ts";

const reload = ["systemctl", "daemon-reload"];
const templates = ["llamagate-bridge@.socket", "llamagate-bridge@.service"];

/** The gate's ways to other hosts and to Valkey, as the configuration names them. */
export function bridges(installation: Installation): Step {
	const { configFile, folder, user } = installation;
	return {
		id: "bridges",
		title: "Bridges to other hosts and to Valkey",
		why: "The gate has no network; a bridge leads it to one address that its configuration names, and to nothing else.",
		async inspect() {
			const { snapshot } = await takeSnapshot(configFile);
			const names = await madeBridgeNames();
			if (snapshot.kind === "nothing" && names.length === 0)
				return absent("no configuration names other hosts yet");
			const open =
				snapshot.kind === "nothing"
					? []
					: await changeableByOthers(folder, configFile);
			// A link put in a key's place would have root give away what it leads to.
			if (open.length > 0)
				return unsafe(
					`others than root may change ${open.join(" and ")}, and would say where bridges lead and which files root gives the gate; run: sudo llamagate setup --only account, and then this again`,
				);
			let settings: Settings;
			try {
				settings = await loadConfig(configFile);
			} catch (error) {
				if (!(error instanceof BadFileError)) throw error;
				return unsafe(`${configFile} does not load; see: llamagate check`);
			}
			if (names.length === 0 && hasOwnNetwork(await propertiesOf(gateService)))
				return absent(
					`${gateService} has a network of its own, and takes no bridges`,
				);
			return plan(installation, settings, names);
		},
		async prove() {
			const settings = await loadConfig(configFile);
			return [
				...(await proveBridges(wantedBridges(settings), user)),
				...(await proveHosts(settings)),
			];
		},
	};
}

async function plan(
	installation: Installation,
	settings: Settings,
	names: readonly string[],
): Promise<Inspection> {
	const wanted = wantedBridges(settings);
	const secrets = secretsOf(settings);
	const stale = names.filter(
		(name) => !wanted.some((one) => one.name === name),
	);
	if (wanted.length + secrets.length + stale.length === 0)
		return absent("the configuration names nothing that takes a bridge");
	const all = [...wanted.map(({ name }) => name), ...stale];
	const made = await lookAtBridges(all);
	if (made === undefined)
		return unsafe(
			"systemd does not answer here; without it the gate has a network and takes no bridges",
		);
	const byName = new Map(made.map((bridge) => [bridge.name, bridge]));
	const group = await accountNumber("group", installation.user);
	const obstacles: string[] = [];
	const notes: string[] = [];
	const actions: Action[] = [];
	for (const secret of secrets) {
		const guarded = await guard(secret, installation, group);
		if (typeof guarded === "string") obstacles.push(guarded);
		else actions.push(...guarded);
	}
	if (wanted.length > 0) actions.push(...(await writeTemplates(installation)));
	for (const bridge of wanted) {
		const before = byName.get(bridge.name);
		const found = await findAddress(bridge);
		if (found.kind === "address") {
			actions.push(...makeBridge(bridge, found.address, before));
			if (found.address !== bridge.host)
				notes.push(
					`The name ${bridge.host} leads to ${found.address} now, and so does its bridge until setup is run again.`,
				);
		} else if (found.kind === "not found" && before?.dropIn !== undefined)
			notes.push(`${found.why}. Its bridge stays as it is.`);
		else obstacles.push(found.why);
	}
	const removals = stale.flatMap((name) =>
		removeBridge(name, byName.get(name)?.dropIn !== undefined),
	);
	actions.push(...removals);
	// What nothing needs any more goes, whatever keeps the rest from being made.
	if (obstacles.length > 0 && stale.length === 0)
		return unsafe(obstacles.join("; "), notes);
	if (obstacles.length > 0)
		return todo(
			`no host of the configuration needs ${stale.join(", ")} any more`,
			removals,
			obstacles.map((why) => `Left to you: ${why}`),
		);
	if (actions.length === 0)
		return done(
			wanted.length === 0
				? "the keys of other hosts are the gate's alone"
				: `there is a bridge to ${wanted.map(({ whose }) => whose).join(", ")}`,
			notes,
		);
	if ((await lookUpUnit("llamagate.service"))?.isActive)
		actions.push({
			kind: "command",
			command: ["systemctl", "reload", "llamagate.service"],
		});
	if (settings.state !== undefined)
		notes.push(
			"What changed in state takes a restart: sudo systemctl restart llamagate",
		);
	return todo(
		[
			...(wanted.length === 0
				? []
				: [
						`the gate is to reach ${wanted.map(({ whose }) => whose).join(", ")}`,
					]),
			...(stale.length === 0
				? []
				: [`nothing needs ${stale.join(", ")} any more`]),
		].join("; ") || "the keys of other hosts are not the gate's alone",
		actions,
		notes,
	);
}

/** From npm or a checkout the units are setup's to write; the package has its own. */
async function writeTemplates(installation: Installation): Promise<Action[]> {
	const actions: Action[] = [];
	for (const name of templates) {
		const content = withPaths(
			await readPackaged(installation, `systemd/${name}`),
			installation,
		);
		const { own, isPackaged } = await whoseUnit(name);
		if (own === undefined && isPackaged) continue;
		if (own !== content)
			actions.push(rootFile(`${ownFolder}/${name}`, content, [reload]));
	}
	return actions.length === 0
		? []
		: [...actions, { kind: "command", command: reload }];
}

function makeBridge(
	wanted: WantedBridge,
	address: string,
	before: MadeBridge | undefined,
): Action[] {
	const { name } = wanted;
	const [socket, service] = [socketUnit(name), serviceUnit(name)];
	const content = dropInOf(wanted, address);
	const actions: Action[] = [];
	if (before?.dropIn !== content)
		actions.push(
			rootDirectory(dropInFolder(name)),
			rootFile(dropInFile(name), content, [reload]),
			{ kind: "command", command: reload },
			// What leads elsewhere ends; the next connection starts it anew.
			{
				kind: "command",
				command: ["systemctl", "stop", service],
				undo: [["systemctl", "stop", service]],
			},
		);
	if (!before?.isActive || !before.isEnabled)
		actions.push({
			kind: "command",
			command: ["systemctl", "enable", "--now", socket],
			undo: [
				["systemctl", "disable", "--now", socket],
				["systemctl", "stop", service],
			],
		});
	return actions;
}

function removeBridge(name: string, hasDropIn: boolean): Action[] {
	const [socket, service] = [socketUnit(name), serviceUnit(name)];
	return [
		{
			kind: "command",
			command: ["systemctl", "disable", "--now", socket],
			undo: [["systemctl", "enable", "--now", socket]],
		},
		{ kind: "command", command: ["systemctl", "stop", service] },
		...(hasDropIn ? removeDropIn(dropInFile(name)) : []),
		{ kind: "command", command: reload },
	];
}

/** Takes setup's own drop-in away, and its folder where nobody else has one there. */
export function removeDropIn(file: string): CommandAction[] {
	const folder = path.dirname(file);
	return [
		{
			kind: "command",
			command: ["rm", file],
			changes: [file],
			undo: [reload],
		},
		{
			kind: "command",
			command: ["rmdir", "--ignore-fail-on-non-empty", folder],
			changes: [folder],
		},
	];
}

async function proveBridges(
	wanted: readonly WantedBridge[],
	user: string,
): Promise<Proof[]> {
	const group = await accountNumber("group", user);
	const made = await lookAtBridges(wanted.map(({ name }) => name));
	return Promise.all(
		wanted.map(async (bridge, index) => {
			const found = await findAddress(bridge);
			// What was taken away for another host does not make this one.
			if (
				found.kind === "refused" ||
				(found.kind === "not found" && made?.[index]?.dropIn === undefined)
			)
				return { ok: false, says: found.why, advice: "mend that" };
			const trouble = await socketTrouble(bridge, group);
			const address = made?.[index]?.address ?? "";
			return {
				ok: trouble === undefined && address !== "",
				says:
					trouble ??
					`the bridge for ${bridge.whose} leads to ${address === "" ? "no address" : address}, and the gate alone may open it`,
				advice: `see: systemctl status '${socketUnit(bridge.name)}'`,
			};
		}),
	);
}

/** That each host answers over its bridge. One may be off now, and this host is not at fault. */
async function proveHosts(settings: Settings): Promise<Proof[]> {
	const { hosts, upstream } = withBridges(settings, bridgesFolder);
	if (hosts === undefined) return [];
	let keys: ReadonlyMap<string, string>;
	try {
		keys = await loadHostKeys(settings);
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return [
			{ ok: false, says: error.message, advice: "see: sudo llamagate check" },
		];
	}
	return Promise.all(
		hosts.map(async (host): Promise<Proof> => {
			let tried = await tryOut(host, upstream, keys.get(host.name));
			// The first connection starts the bridge.
			if (tried.why !== undefined)
				await becomesTrue(async () => {
					tried = await tryOut(host, upstream, keys.get(host.name));
					return tried.why === undefined;
				}, 2_000);
			const { name, url, why, models, isBare } = tried;
			if (isBare)
				return {
					ok: false,
					says: `${name} (${url}) answers without a key: anyone who reaches it has all of it`,
					advice: "on that host: sudo llamagate setup",
				};
			return why === undefined
				? {
						ok: true,
						says: `${name} (${url}) answers, and has ${models} model(s)`,
					}
				: {
						ok: true,
						isPending: true,
						says: `${name} (${url}) is of no use yet: ${why}; once that is mended, look with: sudo llamagate doctor --only gate.hosts`,
					};
		}),
	);
}
