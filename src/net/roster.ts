/** What can stand on one roster at a time. */
export interface Member {
	/** Its place there, kept by the roster; -1 while it is on none. */
	place: number;
}

/**
 * What is at work now, in no order. A `Set` of what comes and goes with every
 * request would do, but for V8's garbage collector: a hash table that has filled
 * up points to the one that took its place (OrderedHashTable, for iterators under
 * way) and keeps its last entries. One of them in the old heap, though dead,
 * keeps every later one and a few requests with each alive until the next
 * collection of the whole heap.
 */
export class Roster<T extends Member> {
	readonly #members: T[] = [];

	get size(): number {
		return this.#members.length;
	}

	add(member: T): void {
		if (member.place !== -1) return;
		member.place = this.#members.push(member) - 1;
	}

	delete(member: T): void {
		const { place } = member;
		if (place === -1 || this.#members[place] !== member) return;
		member.place = -1;
		const last = this.#members.pop();
		if (last === undefined || last === member) return;
		this.#members[place] = last;
		last.place = place;
	}

	/** Those that are on it now, whoever comes and goes while they are walked through. */
	[Symbol.iterator](): Iterator<T> {
		return this.#members.slice()[Symbol.iterator]();
	}
}
