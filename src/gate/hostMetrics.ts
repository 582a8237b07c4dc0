import type { HostStatus } from "../admin/status.ts";
import { hostStates } from "../upstream/hosts/health.ts";
import type { Family } from "./metricFamily.ts";

/** Of each host, where there are several. Their names are restricted by the configuration's schema. */
export function hostFamilies(
	hosts: readonly HostStatus[],
	family: Family,
): void {
	const per = (
		name: string,
		type: "counter" | "gauge",
		help: string,
		value: (host: HostStatus) => number,
	) =>
		family(
			`host_${name}`,
			type,
			help,
			hosts.map((host) => [`{upstream="${host.name}"}`, value(host)]),
		);
	per("up", "gauge", "Whether a host is up.", ({ state }) =>
		Number(state === "up"),
	);
	family(
		"host_state",
		"gauge",
		"The state of a host: 1 for the one that holds, 0 for the others.",
		hosts.flatMap(({ name, state }) =>
			hostStates.map((one): [string, number] => [
				`{upstream="${name}",state="${one}"}`,
				Number(one === state),
			]),
		),
	);
	per(
		"outstanding",
		"gauge",
		"Requests that are with a host or wait for it.",
		({ outstanding }) => outstanding,
	);
	per(
		"requests_total",
		"counter",
		"Requests that went to a host.",
		({ requests }) => requests,
	);
	per(
		"failures_total",
		"counter",
		"Requests that failed at a host, wherever they went then.",
		({ failed }) => failed,
	);
	per(
		"moved_total",
		"counter",
		"Requests that went on to another host.",
		({ moved }) => moved,
	);
}
