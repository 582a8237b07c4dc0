import type { ReplyFormat } from "./errors.ts";
import { isBlank, MemberScan } from "./memberScan.ts";
import {
	type Counts,
	noCounts,
	readCounts,
	type Usage,
} from "./replyCounts.ts";
import {
	hasEvent,
	hasMark,
	isDoneLine,
	lastBeginning,
	lastEvents,
} from "./replyEnds.ts";
import type { Route } from "./routes.ts";
import { markBytes, TextEvents } from "./textEvents.ts";
import { place, wantedOf } from "./usageFields.ts";

/**
 * What is the last of a reply has ended in so many bytes before its end. What has
 * ended before, and is not part of a longer line, need not be looked at.
 */
const tailBytes = 4096;
/** The beginning of a line that waits for more of it. */
const shortBytes = 1024;
/** In which of the first lines or events the model is looked for. */
const openingLines = 4;
const maxModelLength = 256;
/** What is kept of the start of a line of events: more than the longest name that matters. */
const maxFieldLength = 64;
const lf = 0x0a;

/** The tail, what comes before it is looked at, and a mark that is split. */
const keptBytes = 2 * tailBytes + markBytes;
/** Buffers of replies that are over, for those that come. */
const spares: Buffer[] = [];
const maxSpares = 256;

/**
 * Reads along a reply: the model that it names, its token counts, and whether it
 * came to its own end, wherever they stand and however long a line is. What it
 * finds does not depend on the pieces in which the reply comes.
 *
 * Bytes of a stream of short lines are only copied, into one buffer of 8 KiB: of
 * what leaves it again, only a line that is still going on is looked at, and of
 * what is left in it at the end, all. The chunks themselves are not kept, as they
 * would be a dozen objects each that every garbage collection has to move.
 */
export class ReplyScan {
	readonly #path: string;
	readonly #format: ReplyFormat;
	/** Whether more is wanted of the reply than its last byte. */
	readonly #reads: boolean;
	readonly #members: MemberScan;
	/** Those in what has left `#kept`. */
	readonly #texts: TextEvents;
	#lastByte: number | undefined;
	/** What has not been looked at. */
	#kept: Buffer | undefined;
	#keptLength = 0;
	/** Bytes that have been looked at, or passed over. */
	#passed = 0;
	#isFinished = false;

	/** The first bytes of a line of events. */
	#field = "";
	/** The line is an event's data. */
	#isData = false;
	/** The name of the event that is going on. */
	#event = "";

	#model: string | undefined;
	/** Lines or events that were looked at. */
	#judged = 0;
	#counts = noCounts;
	#countsEndAt = 0;
	/** Lines or events that had been looked at before. */
	#judgedBeforeCounts = 0;
	/** Of the last line or event that was looked at. */
	#isEnd = false;
	#endAt = 0;
	/** Behind the error that it is, or, if it is a mark, that stands before it. */
	#errorAt: number | undefined;
	#responseId: string | undefined;
	#sequenceNumber = -1;

	constructor(route: Route, format: ReplyFormat) {
		this.#path = route.path;
		this.#format = format;
		this.#reads = route.scope === "infer" || format !== "opaque";
		this.#members = new MemberScan(wantedOf(route));
		this.#texts = new TextEvents(route.path, format);
	}

	/** Takes note of the next bytes. */
	push(bytes: Buffer, start = 0, end = bytes.length): void {
		if (end <= start) return;
		this.#lastByte = bytes[end - 1];
		if (!this.#reads) return;
		if (this.#format === "opaque") {
			this.#members.scan(bytes, start, end);
			return;
		}
		this.#kept ??= spares.pop() ?? Buffer.allocUnsafeSlow(keptBytes);
		const from =
			this.#keptLength + end - start > 2 * tailBytes
				? this.#makeRoom(this.#kept, bytes, start, end)
				: start;
		this.#keptLength += bytes.copy(this.#kept, this.#keptLength, from, end);
	}

	/** Passes over all but the tail. Returns from where on the new bytes belong to that. */
	#makeRoom(kept: Buffer, bytes: Buffer, start: number, end: number): number {
		// A mark of text may begin in the old bytes and end in the new ones.
		const seamEnd = Math.min(end, start + markBytes);
		const readable =
			this.#keptLength + bytes.copy(kept, this.#keptLength, start, seamEnd);
		const stay = tailBytes - (end - start);
		if (stay <= 0) {
			this.#passOver(kept, 0, this.#keptLength);
			this.#texts.pass(kept, 0, this.#keptLength, readable);
			this.#keptLength = 0;
			this.#passOver(bytes, start, end - tailBytes);
			this.#texts.pass(bytes, start, end - tailBytes, end);
			return end - tailBytes;
		}
		const go = this.#keptLength - stay;
		let at = this.#skip(kept, 0, go);
		// A line that has just begun is not worth a look yet.
		if (at === 0 || go - at > shortBytes) {
			this.#readOn(kept, at, go);
			at = go;
		}
		this.#texts.pass(kept, 0, at, readable);
		kept.copyWithin(0, at, this.#keptLength);
		this.#keptLength -= at;
		return start;
	}

	/** Bytes behind which the tail has come: what has ended in them cannot be the last. */
	#passOver(bytes: Buffer, start: number, end: number): void {
		this.#readOn(bytes, this.#skip(bytes, start, end), end);
	}

	/** Returns where the last line or event begins, or `start` if it is the one that is going on. */
	#skip(bytes: Buffer, start: number, end: number): number {
		const at = this.#readOpening(bytes, start, end);
		return this.#skipTo(at, lastBeginning(this.#format, bytes, at, end));
	}

	#skipTo(at: number, beginsAt: number | undefined): number {
		if (beginsAt === undefined) return at;
		this.#passed += beginsAt - at;
		this.#beginLine();
		this.#event = "";
		this.#counts = noCounts;
		return beginsAt;
	}

	#readOn(bytes: Buffer, start: number, end: number): void {
		let at = start;
		while (at < end) at = this.#readLine(bytes, at, end);
	}

	/** Reads on until the model has been found, and returns the place behind. */
	#readOpening(bytes: Buffer, start: number, end: number): number {
		let at = start;
		while (at < end && this.#model === undefined && this.#judged < openingLines)
			at = this.#readLine(bytes, at, end);
		return at;
	}

	/** Reads the last line, or the last two events: counts may stand before the mark. */
	#readTail(kept: Buffer, start: number): void {
		const end = this.#keptLength;
		const at = this.#readOpening(kept, start, end);
		let textEnd = end;
		while (textEnd > at && isBlank(kept[textEnd - 1] ?? 0)) textEnd -= 1;
		let beginsAt = lastBeginning(this.#format, kept, at, textEnd);
		if (this.#format === "sse") {
			let events = 0;
			let eventEnd = textEnd;
			while (beginsAt !== undefined) {
				const event = kept.toString("latin1", beginsAt, eventEnd);
				if (hasEvent(this.#path, event)) events += 1;
				if (events === 2) break;
				eventEnd = beginsAt - 1;
				beginsAt = lastBeginning("sse", kept, at, eventEnd);
			}
		}
		this.#readOn(kept, this.#skipTo(at, beginsAt), end);
	}

	/** Reads what there is of a line, and returns the place behind it. */
	#readLine(bytes: Buffer, start: number, end: number): number {
		const found = bytes.indexOf(lf, start);
		const stop = found === -1 || found > end ? end : found;
		if (this.#format === "ndjson") this.#members.scan(bytes, start, stop);
		else this.#readField(bytes, start, stop);
		this.#passed += stop - start;
		if (stop === end) return end;
		this.#endLine();
		this.#passed += 1;
		return stop + 1;
	}

	#readField(bytes: Buffer, start: number, end: number): void {
		const before = this.#field.length;
		if (before < maxFieldLength)
			this.#field += bytes.toString(
				"latin1",
				start,
				Math.min(end, start + maxFieldLength - before),
			);
		if (this.#isData) this.#members.scan(bytes, start, end);
		else if (this.#field.startsWith("data:")) {
			this.#isData = true;
			this.#members.scan(bytes, start + "data:".length - before, end);
		}
	}

	#endLine(): void {
		if (this.#format === "ndjson") {
			if (this.#members.hasBegun) this.#judgeLine();
		} else if (this.#isData) this.#judgeEvent();
		else if (this.#field.startsWith("event:"))
			this.#event = this.#field.slice("event:".length).trim();
		else if (this.#field.trim() === "") this.#event = "";
		this.#beginLine();
	}

	#beginLine(): void {
		this.#members.reset();
		this.#field = "";
		this.#isData = false;
	}

	/** A line may be one of pull, push or create, which have no mark at their end. */
	#judgeLine(): void {
		const { isWhole } = this.#members;
		const isDone = isWhole && this.#members.value(place.done) === true;
		const isError = isWhole && this.#hasError();
		this.#setCounts(isDone ? readCounts(this.#members) : noCounts);
		this.#setEnd(isDone || isError, isError ? this.#passed : undefined);
	}

	#judgeEvent(): void {
		const isWhole = this.#members.isWhole;
		if (!lastEvents.has(this.#path)) {
			const isError = isWhole && (this.#hasError() || this.#event === "error");
			const counts = isWhole ? readCounts(this.#members) : noCounts;
			// Ollama writes zeros into every event of a completion but the one that counts.
			if ((counts.tokensIn ?? 0) + (counts.tokensOut ?? 0) > 0)
				this.#setCounts(counts);
			const isMark = isDoneLine(this.#field);
			// vLLM writes its mark behind an error, too.
			const isBehindError = isMark && this.#errorAt === this.#endAt;
			const errorBefore = isBehindError ? this.#errorAt : undefined;
			this.#setEnd(isError || isMark, isError ? this.#passed : errorBefore);
			return;
		}
		// Some servers write it behind the event that has the last word; it tells nothing.
		if (isDoneLine(this.#field)) return;
		const type = this.#event || this.#members.value(place.type);
		const fails = isWhole
			? lastEvents.get(this.#path)?.get(String(type))
			: undefined;
		if (isWhole && (type === "message_delta" || fails !== undefined)) {
			const counts = readCounts(this.#members);
			if (counts !== noCounts) this.#setCounts(counts);
		}
		this.#setEnd(fails !== undefined, fails ? this.#passed : undefined);
	}

	#setEnd(isEnd: boolean, errorAt: number | undefined): void {
		const id = this.#members.value(place.responseId);
		if (typeof id === "string") this.#responseId = id;
		const number = this.#members.value(place.sequenceNumber);
		if (typeof number === "number") this.#sequenceNumber = number;
		this.#noteModel();
		this.#judged += 1;
		this.#isEnd = isEnd;
		this.#errorAt = errorAt;
		this.#endAt = this.#passed;
	}

	#noteModel(): void {
		if (this.#model !== undefined || this.#judged >= openingLines) return;
		const model = this.#members.value(place.model);
		if (
			typeof model === "string" &&
			model !== "" &&
			model.length <= maxModelLength
		)
			this.#model = model;
	}

	#hasError(): boolean {
		return (this.#members.value(place.error) ?? null) !== null;
	}

	#setCounts(counts: Counts): void {
		this.#counts = counts;
		this.#countsEndAt = this.#passed;
		this.#judgedBeforeCounts = this.#judged;
	}

	/** Looks at what is left; nothing more comes. */
	#finish(): void {
		if (this.#isFinished) return;
		this.#isFinished = true;
		if (this.#format === "opaque") {
			if (!this.#reads) return;
			this.#noteModel();
			if (this.#members.isWhole) this.#setCounts(readCounts(this.#members));
			return;
		}
		if (this.#kept !== undefined) {
			const tailAt = Math.max(0, this.#keptLength - tailBytes);
			this.#passOver(this.#kept, 0, tailAt);
			this.#readTail(this.#kept, tailAt);
		}
		this.#endLine();
		const tailAt = this.#passed - tailBytes;
		if (this.#endAt < tailAt) this.#isEnd = false;
		if ((this.#errorAt ?? 0) < tailAt) this.#errorAt = undefined;
		const judgedSince = this.#judged - this.#judgedBeforeCounts;
		if (this.#countsEndAt < tailAt || judgedSince > 2) this.#counts = noCounts;
	}

	/** Gives its buffer back. No more may be pushed. */
	release(): void {
		this.#finish();
		if (this.#kept !== undefined && spares.length < maxSpares)
			spares.push(this.#kept);
		this.#kept = undefined;
	}

	/** The model, as soon as the reply has named it; unlike `usage()` it may be asked while the reply comes. */
	get model(): string | undefined {
		return this.#model;
	}

	/** The last byte of the reply so far. */
	get lastByte(): number | undefined {
		return this.#lastByte;
	}

	/**
	 * The model, the token counts and Ollama's times, as far as the reply names them. Ollama writes
	 * placeholders at the start of some streams; they do not count.
	 */
	usage(): Usage {
		this.#finish();
		return { model: this.#model, ...this.#counts };
	}

	/** How many events or lines of a stream so far carry text; 0 behind `release`. */
	get textEvents(): number {
		if (this.#kept === undefined) return 0;
		return this.#texts.countWith(this.#kept, this.#keptLength);
	}

	/**
	 * Whether a reply that ended came to its own end. Ollama's event streams just
	 * stop when a runner dies, so one whose last event is none that ends it has
	 * failed. Replies without such a mark are always complete.
	 */
	get isComplete(): boolean {
		return this.saidAll || !this.#hasMark;
	}

	/** Whether it has come to its mark of the end. */
	get saidAll(): boolean {
		this.#finish();
		return this.#hasMark && this.#isEnd;
	}

	get #hasMark(): boolean {
		return hasMark(this.#path, this.#format);
	}

	/** Whether the reply's own last words are an error. */
	get endsWithError(): boolean {
		this.#finish();
		return this.#errorAt !== undefined;
	}

	/** Of a stream of `/v1/responses`: its identity, and the number of the event that would come next. */
	get responseState(): { id: string | undefined; nextSequenceNumber: number } {
		this.#finish();
		return {
			id: this.#responseId,
			nextSequenceNumber: this.#sequenceNumber + 1,
		};
	}
}
