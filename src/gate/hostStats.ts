import type { HostStatus } from "../admin/status.ts";
import { formatUpstream } from "../config/upstreams.ts";
import type { QueueStats } from "../queue/stats.ts";
import type { Host } from "../upstream/hosts/host.ts";

/** What the queues of several hosts come to. */
export function addUp(all: readonly QueueStats[]): QueueStats | undefined {
	const [first, ...rest] = all;
	if (first === undefined) return undefined;
	return rest.reduce(
		(sum, one) => ({
			waiting: {
				interactive: sum.waiting.interactive + one.waiting.interactive,
				normal: sum.waiting.normal + one.waiting.normal,
				batch: sum.waiting.batch + one.waiting.batch,
			},
			running: sum.running + one.running,
			dispatched: sum.dispatched + one.dispatched,
			left: sum.left + one.left,
			refused: sum.refused + one.refused,
			loads: sum.loads + one.loads,
			waitedMs: sum.waitedMs + one.waitedMs,
			ignoredPriorities: sum.ignoredPriorities + one.ignoredPriorities,
			models: [...sum.models, ...one.models],
		}),
		first,
	);
}

/** What is known of a host, for status and metrics. */
export function describeHost(host: Host, nowMs: number): HostStatus {
	const { name, kind, settings, health, catalog, counts } = host;
	return {
		name,
		kind,
		url: formatUpstream(settings.target),
		state: health.state,
		forSeconds: Math.max(0, Math.round((nowMs - health.sinceMs) / 1000)),
		why: health.why ?? null,
		models: catalog?.size ?? null,
		outstanding: host.outstanding,
		requests: counts.requests,
		failed: counts.failed,
		moved: counts.moved,
	};
}
