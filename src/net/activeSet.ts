/** What can be in one active set at a time. */
export interface Member {
	/** Its index there, kept by the set; -1 while it is in none. */
	index: number;
}

/**
 * What is at work now, in no order. A `Set` of what comes and goes with every
 * request would do, but for V8's garbage collector: a hash table that has filled
 * up points to the one that took its place (OrderedHashTable, for iterators under
 * way) and keeps its last entries. One of them in the old heap, though dead,
 * keeps every later one and a few requests with each alive until the next
 * collection of the whole heap.
 */
export class ActiveSet<T extends Member> {
	readonly #members: T[] = [];

	get size(): number {
		return this.#members.length;
	}

	add(member: T): void {
		if (member.index !== -1) return;
		member.index = this.#members.push(member) - 1;
	}

	delete(member: T): void {
		const { index } = member;
		if (index === -1 || this.#members[index] !== member) return;
		member.index = -1;
		const last = this.#members.pop();
		if (last === undefined || last === member) return;
		this.#members[index] = last;
		last.index = index;
	}

	/** Those that are in it now, no matter which come and go while they are walked through. */
	[Symbol.iterator](): Iterator<T> {
		return this.#members.slice()[Symbol.iterator]();
	}
}
