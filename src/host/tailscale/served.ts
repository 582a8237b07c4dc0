import { finding, type Outcome, ok } from "../../doctor/check.ts";
import {
	goesAroundGate,
	guardedBehind,
	type LocalPlaces,
	offCommand,
	type ServedPort,
} from "../../tailscale/serveConfig.ts";

export const serveNotSeen =
	"tailscale serve status --json did not answer; see tailscale.running";
export function judgeFunnel(
	served: readonly ServedPort[],
	places: LocalPlaces,
): Outcome {
	const open = served.filter(({ funnel }) => funnel);
	if (open.length === 0) return ok("Funnel is on for no port");
	const guarded = open.map(({ target }) => guardedBehind(target, places));
	return finding(
		open.map(({ where, target }, index) => {
			const behind = guarded[index];
			return `the internet reaches ${where}, which leads to ${target}${behind === undefined ? "" : ` (${behind})`}`;
		}),
		{
			fix: fixOf(open),
			severity: guarded.some(Boolean) ? "critical" : "high",
		},
	);
}

export function judgeServe(
	served: readonly ServedPort[],
	places: LocalPlaces,
): Outcome {
	const around = served.filter((one) => goesAroundGate(one, places));
	if (around.length === 0)
		return ok(
			served.length === 0
				? "tailscaled serves nothing"
				: served
						.map(({ where, target }) => `${where} leads to ${target}`)
						.join("; "),
		);
	return finding(
		around.map(({ where, target }) =>
			guardedBehind(target, places) === "Ollama"
				? `${where} leads to ${target}, which is Ollama, without a key`
				: `${where} takes the gate's place and leads to ${target}: keys are sent there`,
		),
		{ fix: fixOf(around) },
	);
}

function fixOf(served: readonly ServedPort[]): string {
	return [...new Set(served.map(offCommand))].join("\n");
}
