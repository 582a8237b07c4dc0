import { readFile } from "node:fs/promises";
import { bridgesVariable } from "../../config/bridges.ts";
import { loadConfig } from "../../config/load.ts";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { ifUsable } from "../../errors.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { accountNumber } from "../../system/accounts.ts";
import { formatCommand } from "../../system/run.ts";
import { gateService, mainPidOf, propertiesOf } from "../gate/inspect.ts";
import {
	type Found,
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

const fix = "sudo llamagate setup --only bridges";

export const bridgeExaminations: readonly Examination[] = [
	{
		id: "gate.bridges",
		group: "gate",
		layer: "gate",
		title:
			"Bridges lead the gate where its configuration says, and nowhere else",
		severity: "high",
		why: "The gate has no network: without its bridge a host is down for it, and a bridge that leads elsewhere takes keys and prompts there.",
		fix,
		step: "bridges",
		needsRoot: true,
		examine: examineBridges,
	},
];

async function examineBridges(patient: Patient): Promise<Outcome> {
	const settings = await ifUsable(loadConfig(patient.configFile));
	if (settings === undefined)
		return unknown("the configuration cannot be read");
	const wanted = wantedBridges(settings);
	const names = await madeBridgeNames();
	const stale = names.filter(
		(name) => !wanted.some((one) => one.name === name),
	);
	if (wanted.length + stale.length === 0)
		return absent("the configuration names nothing that takes a bridge");
	const unit = await propertiesOf(gateService);
	if (unit === undefined)
		return absent("systemd does not answer here, and bridges are its own");
	if (hasOwnNetwork(unit))
		return absent(`${gateService} has a network of its own, and no bridges`);
	const made = await lookAtBridges(wanted.map(({ name }) => name));
	if (made === undefined) return unknown("systemd does not answer here");
	const group = await accountNumber("group", patient.installation.user);
	const looks = await Promise.all(
		wanted.map(async (bridge, index) => ({
			wanted: bridge,
			made: made[index],
			found: await findAddress(bridge),
			trouble: await socketTrouble(bridge, group),
		})),
	);
	return judgeBridges(looks, stale, await knowsBridges(mainPidOf(unit)));
}

/** Whether the running gate takes bridges; `undefined` where none runs. */
async function knowsBridges(
	pid: number | undefined,
): Promise<boolean | undefined> {
	if (pid === undefined) return undefined;
	const environ = await readFile(`/proc/${pid}/environ`, "latin1").catch(
		() => undefined,
	);
	return environ
		?.split("\0")
		.some((word) => word.startsWith(`${bridgesVariable}=`));
}

/** What was seen of one bridge that the configuration asks for. */
export interface BridgeLook {
	readonly wanted: WantedBridge;
	readonly made: MadeBridge | undefined;
	readonly found: Found;
	/** What is wrong with its socket. */
	readonly trouble: string | undefined;
}

/**
 * @param stale bridges that nothing in the configuration needs
 * @param isTaken whether the running gate takes bridges; `undefined` where none runs
 */
export function judgeBridges(
	looks: readonly BridgeLook[],
	stale: readonly string[],
	isTaken: boolean | undefined,
): Outcome {
	const wrong: string[] = [];
	const seen: string[] = [];
	for (const look of looks) {
		const troubles = troublesOf(look);
		const { whose } = look.wanted;
		if (troubles.length > 0)
			wrong.push(...troubles.map((trouble) => `${whose}: ${trouble}`));
		else
			seen.push(
				`${whose}: a bridge leads to ${look.made?.address}, and the gate alone may open it`,
			);
	}
	const foreign = unique(
		looks.flatMap(({ made }) => made?.foreignDropIns ?? []),
	);
	const rest = stale.map(
		(name) =>
			`${socketUnit(name)} leads to a place that the configuration does not name`,
	);
	if (wrong.length + rest.length > 0)
		return finding([...wrong, ...rest], {
			...(wrong.length === 0 && { severity: "warn" }),
			...(foreign.length > 0 && {
				fix: `${formatCommand(["sudo", "rm", ...foreign])} && sudo systemctl daemon-reload && ${fix}`,
			}),
		});
	if (isTaken === false && looks.length > 0)
		return finding(
			["the running gate was started before it knew of bridges", ...seen],
			{
				fix: `sudo llamagate setup --only bridges,gate; then: sudo systemctl restart llamagate`,
			},
		);
	return ok(...seen);
}

function troublesOf({
	wanted,
	made,
	found,
	trouble,
}: BridgeLook): readonly string[] {
	if (found.kind === "refused") return [found.why];
	if (made?.dropIn === undefined) return ["no bridge leads to it yet"];
	const troubles: string[] = [];
	const { name, port } = wanted;
	const states = [
		made.isActive ? "" : "does not run",
		made.isEnabled ? "" : "does not start at boot",
	].filter(Boolean);
	if (states.length > 0)
		troubles.push(`${socketUnit(name)} ${states.join(" and ")}`);
	if (made.isActive && trouble !== undefined) troubles.push(trouble);
	if (found.kind === "address") {
		const address = formatHostPort(found.address, port);
		if (made.address !== address)
			troubles.push(
				`its bridge leads to ${made.address || "no address"}, and the configuration to ${address}`,
			);
		const allowed = made.service.get("IPAddressAllow");
		if (
			allowed !== undefined &&
			allowed.replace(/\/(?:32|128)$/, "") !== found.address
		)
			troubles.push(
				`its bridge may reach ${allowed === "" ? "nothing" : allowed}, and is to reach ${found.address} alone`,
			);
	}
	if (made.service.get("IPAddressDeny") === "")
		troubles.push(`${serviceUnit(name)} may reach any address`);
	if (made.service.get("ActiveState") === "failed")
		troubles.push(
			`${serviceUnit(name)} has failed; see: journalctl -u '${serviceUnit(name)}' -n 20`,
		);
	for (const file of made.foreignDropIns)
		troubles.push(`${file} changes its bridge, and is none of setup's`);
	return troubles;
}
