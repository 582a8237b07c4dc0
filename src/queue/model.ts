import { ActiveSet } from "../net/activeSet.ts";
import { type Priority, priorities } from "../priority.ts";
import type { Account, Charge } from "./fairness.ts";
import { Heap, type Heaped } from "./heap.ts";
import { Visitors } from "./lastSlot.ts";
import { Slots } from "./slots.ts";

/** The key of whatever a body names that cannot be read for sure; it is never known to be loaded. */
export const unclearModel = "";

/** What of a request decides when its turn is. */
export interface Asked {
	/** Whose it is; users get equal parts. */
	readonly user: string;
	/** Two of it get twice the part. */
	readonly share: number;
	readonly priority: Priority;
	/** Names of one model file have one key here. */
	readonly model: string;
	/** Whether its reply is a stream, so that its first byte comes early. */
	readonly isStream: boolean;
}

/** A request in the queue, from its arrival to its end. */
export class Place {
	/** Among those of its model that run. */
	index = -1;
	readonly asked: Asked;
	/** The class that it waits in: an index of `priorities`. */
	readonly rank: number;
	readonly model: Model;
	line: Line | undefined;
	state: "waiting" | "running" | "over" = "waiting";
	charge: Charge | undefined;
	/** From when on the GPU works for it. */
	servedFromMs = 0;
	startedMs = 0;
	hasFirstByte = false;
	/** It makes Ollama load its model. */
	isLoader = false;
	/** What ran when it was sent beyond the known slots, until it is known whether it fits; all must still run at its first byte. */
	rivals: ReadonlySet<Place> | undefined;
	wasTry = false;
	/** When it began, it took the last of the known slots or one beyond. */
	fillsSlots = false;
	/** How many of its model had ended when it began. */
	endsBefore = 0;
	/** Its client did not take what came, so Ollama may have ended long before. */
	hasStalled = false;

	constructor(asked: Asked, model: Model) {
		this.asked = asked;
		this.rank = priorities.indexOf(asked.priority);
		this.model = model;
	}
}

/** What one user has waiting in one class for one model, in the order of arrival. */
export class Line implements Heaped {
	heapIndex = -1;
	readonly account: Account;
	readonly lane: Lane;
	readonly places = new Set<Place>();
	/** Since when it waits, and nothing of its user has been at work. */
	sinceMs: number;

	constructor(account: Account, lane: Lane, nowMs: number) {
		this.account = account;
		this.lane = lane;
		this.sinceMs = nowMs;
	}

	/** Its user's turn has come: nobody passes it over until that has ended. */
	served(): void {
		this.lane.passedOver.delete(this);
	}

	/** Nothing of its user is at work any more, and it waits. */
	rests(nowMs: number): void {
		this.sinceMs = nowMs;
		this.lane.passedOver.delete(this);
		this.lane.passedOver.add(this);
	}

	/** Its user's counter has changed. */
	moved(): void {
		this.lane.lines.moved(this);
	}
}

/** All that waits in one class for one model. */
export class Lane {
	/** The least served user is first; of equals the one that was served or came longest ago. */
	readonly lines = new Heap<Line>((a, b) => isBefore(a.account, b.account));
	readonly byUser = new Map<string, Line>();
	/** Those whose users have nothing at work here; the one that has got nothing for longest is first. */
	readonly passedOver = new Set<Line>();
	/** In the order of arrival. */
	readonly arrivals = new Set<Place>();

	/** The line of a request's user, which begins now if there is none. */
	lineOf(place: Place, account: Account, nowMs: number): Line {
		const { user } = place.asked;
		let line = this.byUser.get(user);
		if (line !== undefined) return line;
		line = new Line(account, this, nowMs);
		if (!isAtWork(place)) this.passedOver.add(line);
		this.byUser.set(user, line);
		account.standings ??= new Set();
		account.standings.add(line);
		return line;
	}
}

/** Where a request waits. */
export function laneOf({ model, rank }: Place): Lane {
	const lane = model.lanes[rank];
	if (lane === undefined) throw new Error(`class ${rank} does not exist`);
	return lane;
}

/** Whether anything runs of a request's user, in its class and for its model. */
export function isAtWork({ model, rank, asked: { user } }: Place): boolean {
	for (const other of model.running)
		if (other.rank === rank && other.asked.user === user) return true;
	return false;
}

/** Whether one user's turn comes before another's. */
export function isBefore(a: Account, b: Account): boolean {
	const by = a.counter - b.counter;
	return by === 0 ? a.lastTurn < b.lastTurn : by < 0;
}

/** A model, whatever names it has. */
export class Model {
	readonly key: string;
	/** As far as is known. */
	isLoaded = false;
	/** How long a load of it takes; 0 until one was seen. */
	loadMs = 0;
	/** Since when it is loaded, and since when nothing runs on it. */
	turnSinceMs = 0;
	idleSinceMs = 0;
	/** The request that makes Ollama load it. */
	loader: Place | undefined;
	readonly running = new ActiveSet<Place>();
	/** By class, the highest first. */
	readonly lanes: readonly Lane[] = priorities.map(() => new Lane());
	/** Models that had to go when it was loaded, or for which it had to. */
	readonly clashesWith = new Set<Model>();
	slots = new Slots(1);
	/** How many of its requests have ended, and when the last has. */
	ends = 0;
	endedMs = 0;
	readonly visitors = new Visitors();

	constructor(key: string, parallel: number | "auto") {
		this.key = key;
		this.forgetSlots(parallel);
	}

	/** What was learnt of its slots is void. */
	forgetSlots(parallel: number | "auto"): void {
		this.slots = new Slots(this.key === unclearModel ? 1 : parallel);
		for (const place of this.running) place.rivals = undefined;
	}

	get waiting(): number {
		return this.lanes.reduce((sum, { arrivals }) => sum + arrivals.size, 0);
	}

	get isIdle(): boolean {
		return this.running.size === 0 && this.waiting === 0;
	}
}
