/** What can lie in one heap at a time. */
export interface Heaped {
	/** Its index there, kept by the heap; -1 while it is in none. */
	heapIndex: number;
}

/** A binary heap whose members may be moved or taken out by themselves; each takes O(log n). */
export class Heap<T extends Heaped> {
	readonly #members: T[] = [];
	readonly #isBefore: (a: T, b: T) => boolean;

	constructor(isBefore: (a: T, b: T) => boolean) {
		this.#isBefore = isBefore;
	}

	get size(): number {
		return this.#members.length;
	}

	/** The one that is before all others. */
	get first(): T | undefined {
		return this.#members[0];
	}

	add(member: T): void {
		if (member.heapIndex !== -1) return;
		this.#members.push(member);
		this.#rise(member, this.#members.length - 1);
	}

	delete(member: T): void {
		const at = member.heapIndex;
		if (at === -1) return;
		member.heapIndex = -1;
		const last = this.#members.pop();
		if (last === undefined || last === member) return;
		this.#place(last, at);
		this.moved(last);
	}

	/** Its place among the others has changed. */
	moved(member: T): void {
		const at = member.heapIndex;
		if (at === -1) return;
		this.#rise(member, at);
		this.#sink(member, member.heapIndex);
	}

	[Symbol.iterator](): Iterator<T> {
		return this.#members[Symbol.iterator]();
	}

	/** Its members in their order. So many of them cost no look at the rest; it must not change meanwhile. */
	*inOrder(): Generator<T> {
		const members = this.#members;
		// Indices of what may be next, the first of them last.
		const open = members.length === 0 ? [] : [0];
		const offer = (at: number) => {
			const member = members[at];
			if (member === undefined) return;
			let from = 0;
			let to = open.length;
			while (from < to) {
				const middle = (from + to) >> 1;
				const other = members[open[middle] ?? 0];
				if (other !== undefined && this.#isBefore(member, other))
					from = middle + 1;
				else to = middle;
			}
			open.splice(from, 0, at);
		};
		for (;;) {
			const at = open.pop();
			const member = members[at ?? -1];
			if (at === undefined || member === undefined) return;
			yield member;
			offer(2 * at + 1);
			offer(2 * at + 2);
		}
	}

	#place(member: T, at: number): void {
		this.#members[at] = member;
		member.heapIndex = at;
	}

	#rise(member: T, from: number): void {
		let at = from;
		while (at > 0) {
			const above = (at - 1) >> 1;
			const parent = this.#members[above];
			if (parent === undefined || !this.#isBefore(member, parent)) break;
			this.#place(parent, at);
			at = above;
		}
		this.#place(member, at);
	}

	#sink(member: T, from: number): void {
		let at = from;
		for (;;) {
			const left = this.#members[2 * at + 1];
			if (left === undefined) break;
			const right = this.#members[2 * at + 2];
			const child =
				right !== undefined && this.#isBefore(right, left) ? right : left;
			if (!this.#isBefore(child, member)) break;
			const below = child.heapIndex;
			this.#place(child, at);
			at = below;
		}
		this.#place(member, at);
	}
}
