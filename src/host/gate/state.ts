import type { GateStatus } from "../../admin/status.ts";
import { loadConfig } from "../../config/load.ts";
import { formatState, type StateSettings } from "../../config/state.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { ifUsable } from "../../errors.ts";
import { isLoopbackAddress, isTailscaleAddress } from "../../net/ranges.ts";
import { askGate } from "./inspect.ts";

/** Whether limits are shared with other gates, where they are to be. */
export async function examineState(patient: Patient): Promise<Outcome> {
	const settings = await ifUsable(loadConfig(patient.configFile));
	if (settings === undefined)
		return unknown("the configuration cannot be read");
	if (settings.state === undefined) return judgeState(undefined, "");
	const asked = await askGate(patient);
	return judgeState(
		settings.state,
		asked.kind === "status" ? asked.status : asked.why,
	);
}

/** @param gate what the running gate says, or why it says nothing */
export function judgeState(
	wanted: StateSettings | undefined,
	gate: Pick<GateStatus, "state"> | string,
): Outcome {
	if (wanted === undefined)
		return absent("the configuration shares nothing with other gates");
	const { target } = wanted;
	const openly =
		target.kind === "tcp" &&
		!target.tls &&
		!isLoopbackAddress(target.host) &&
		!isTailscaleAddress(target.host)
			? [
					`${formatState(target)} is neither on this host nor on the tailnet, and the password and all counts go there as they are; use valkeys://`,
				]
			: [];
	if (typeof gate === "string") return unknown(gate, ...openly);
	const { state } = gate;
	if (state === undefined)
		return finding(
			["the running gate was started without the section state", ...openly],
			{ fix: "sudo systemctl restart llamagate" },
		);
	if (state.valkey !== formatState(target))
		return finding(
			[
				`the running gate uses ${state.valkey}, and the configuration has ${formatState(target)}`,
				...openly,
			],
			{ fix: "sudo systemctl restart llamagate" },
		);
	if (!state.isConnected)
		return finding(
			[
				`${state.valkey} is away: ${state.why ?? "it does not answer"}`,
				`the gate keeps to its part of the limits, as one of ${state.gates}`,
				...openly,
			],
			target.kind === "tcp"
				? {
						fix: "look at Valkey there, and at the way to it, which under the shipped unit is a bridge: sudo llamagate doctor --only gate.bridges; sudo llamagate setup --only bridges makes it",
					}
				: {},
		);
	const facts = [
		`${state.gates} gate(s) share their limits through ${state.valkey}, which went away ${state.losses} time(s) since this one's start`,
	];
	return openly.length > 0 ? finding([...openly, ...facts]) : ok(...facts);
}
