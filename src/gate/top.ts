import { type GateTop, maxTopRequests, type TopRequest } from "../admin/top.ts";
import type { Settings } from "../config/load.ts";
import type { Ticket } from "../queue/ticket.ts";
import { version } from "../version.ts";
import type { Relay } from "./relay.ts";
import type { GateState } from "./state.ts";
import { shownPerson, shownUser } from "./user.ts";

/** What can be seen of the requests that have not ended. */
export function topOf(state: GateState): GateTop {
	const { relays, settings } = state;
	const nowMs = performance.now();
	const stats = state.queueStats();
	const lineUp = new Map<Ticket, number>(
		state.queues.flatMap((one) => [...one.lineUp(maxTopRequests)]),
	);
	const atWork: Relay[] = [];
	const waiting: [Relay, number | null][] = [];
	let waitingCount = 0;
	for (const relay of relays) {
		const { ticket, isWaiting } = relay.errand;
		if (!isWaiting) {
			atWork.push(relay);
			continue;
		}
		waitingCount += 1;
		const ahead = ticket && lineUp.get(ticket);
		// Those far behind are only counted; of the others one may still be looked up.
		if (ahead !== undefined || ticket?.place === undefined)
			waiting.push([relay, ahead ?? null]);
	}
	atWork.sort((a, b) => a.exchange.startedAtMs - b.exchange.startedAtMs);
	const behind = Number.POSITIVE_INFINITY;
	waiting.sort(([, a], [, b]) => (a ?? behind) - (b ?? behind));
	const rows: [Relay, number | null][] = [
		...atWork.map((relay): [Relay, null] => [relay, null]),
		...waiting,
	];
	return {
		version,
		atWork: atWork.length,
		waiting: waitingCount,
		...(stats && {
			queue: {
				waiting: stats.waiting,
				running: stats.running,
				models: stats.models,
			},
		}),
		requests: rows.slice(0, maxTopRequests).map(([relay, ahead]) => ({
			...rowOf(relay, nowMs, settings.logPeople),
			model: relay.errand.model ?? relay.replyModel ?? null,
			ahead,
		})),
	};
}

function rowOf(
	{ exchange, errand: { host, ticket, isWaiting } }: Relay,
	nowMs: number,
	people: Settings["logPeople"],
): Omit<TopRequest, "model" | "ahead"> {
	const { startedAtMs, dispatchedAtMs, queueMs, ttftMs } = exchange;
	const { key } = exchange.knownCredential;
	const { route } = exchange.routeMatch;
	const person = shownPerson(exchange, people);
	const since = (timeMs: number | undefined) =>
		timeMs === undefined ? null : Math.round(nowMs - timeMs);
	const place = ticket?.place;
	return {
		id: exchange.id,
		user: shownUser(exchange, people),
		key: key.label ?? key.name,
		...(person !== undefined && { person }),
		node: exchange.node?.name || null,
		...(host !== undefined && { host: host.name }),
		route: route.id,
		// What takes no turn has none.
		priority: (isWaiting ? ticket?.waiter : place?.asked)?.priority ?? null,
		state: isWaiting
			? "waiting"
			: dispatchedAtMs === undefined
				? "receiving"
				: place !== undefined && place.model.loader === place
					? "loading"
					: "running",
		ageMs: Math.round(nowMs - startedAtMs),
		waitedMs: isWaiting
			? since(ticket?.arrivedMs)
			: queueMs === undefined
				? null
				: Math.round(queueMs),
		runsMs: since(dispatchedAtMs),
		repliesMs: since(ttftMs === undefined ? undefined : startedAtMs + ttftMs),
		pieces: route.scope === "infer" ? exchange.piecesOut : null,
	};
}
