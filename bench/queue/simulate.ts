import { quantile } from "../report.ts";
import { Clock, randomFrom } from "./clock.ts";
import { Gpu } from "./gpu.ts";
import { type PolicyName, policies } from "./policies.ts";
import type { Trace, TraceUser } from "./traces.ts";

/** What a policy made of a trace. */
export interface Outcome {
	readonly groups: Readonly<Record<string, GroupOutcome>>;
	/** How often a model was loaded. */
	readonly loads: number;
	/** How much of the time that the slots of all that fits had was used. */
	readonly usedShare: number;
	/** Requests that ended a second. */
	readonly rate: number;
}

export interface GroupOutcome {
	readonly requests: number;
	/** For the first byte, in seconds. Whoever still waits at the end has waited for nothing till then. */
	readonly wait50: number;
	readonly wait95: number;
	readonly worst: number;
	/** Of all GPU time that was used. */
	readonly gpuShare: number;
}

interface Group {
	readonly waits: number[];
	gpuMs: number;
}

const dayMs = 24 * 3_600_000;

/** How likely somebody at work is to ask when it comes to mind. */
function diligenceAt(timeMs: number): number {
	const day = Math.floor(timeMs / dayMs) % 7;
	const hour = (timeMs % dayMs) / 3_600_000;
	return day < 5 && hour >= 8 && hour < 18 ? 1 : 0.05;
}

/** Runs a trace; the same for one seed, whatever machine it runs on. */
export function simulate(
	trace: Trace,
	policyName: PolicyName,
	seed: number,
): Outcome {
	const clock = new Clock();
	const gpu = new Gpu(clock, trace.gpu);
	const policy = policies[policyName](clock, gpu);
	const groups = new Map<string, Group>();
	/** When those were sent that have not begun, by group. */
	const open = new Set<{ group: Group; sentMs: number }>();

	const begin = (user: TraceUser, random: () => number) => {
		const group = groups.get(user.group) ?? { waits: [], gpuMs: 0 };
		groups.set(user.group, group);
		const { share = 1, priority = "normal", isAtWork = false } = user;
		const think = () => {
			let passedMs = 0;
			do passedMs -= Math.log(1 - random()) * user.thinkMs;
			while (isAtWork && random() > diligenceAt(clock.nowMs + passedMs));
			return passedMs;
		};
		const ask = () => {
			const waiter = { group, sentMs: clock.nowMs };
			open.add(waiter);
			// From half of the mean to one and a half of it.
			const serviceMs = user.serviceMs * (0.5 + random());
			const model = user.models[Math.floor(random() * user.models.length)];
			policy.arrived({
				...{ user: user.name, share, priority, model: model ?? "", serviceMs },
				began() {
					open.delete(waiter);
					group.waits.push((clock.nowMs - waiter.sentMs) / 1000);
				},
				ended() {
					group.gpuMs += serviceMs;
					clock.after(think(), ask);
				},
			});
		};
		for (let index = 0; index < user.open; index++) clock.after(think(), ask);
	};
	// Numbers of one's own, so that what one asks does not depend on others.
	for (const [index, user] of trace.users.entries())
		begin(user, randomFrom(seed * 1_000_003 + index));

	clock.runUntil(trace.seconds * 1000);
	for (const { group, sentMs } of open)
		group.waits.push((clock.nowMs - sentMs) / 1000);
	const used = [...groups.values()].reduce((sum, { gpuMs }) => sum + gpuMs, 0);
	const answered = [...groups.values()].reduce(
		(sum, { waits }) => sum + waits.length,
		-open.size,
	);
	return {
		groups: Object.fromEntries(
			[...groups].map(([name, group]) => [name, outcomeOf(group, used)]),
		),
		loads: gpu.loads,
		usedShare:
			used / (trace.seconds * 1000 * trace.gpu.parallel * trace.gpu.room),
		rate: answered / trace.seconds,
	};
}

function outcomeOf({ waits, gpuMs }: Group, used: number): GroupOutcome {
	return {
		requests: waits.length,
		wait50: quantile(waits, 0.5),
		wait95: quantile(waits, 0.95),
		worst: quantile(waits, 1),
		gpuShare: gpuMs / used,
	};
}
