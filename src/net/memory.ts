/** Shorter pieces are left to the garbage collector. */
const largePieceBytes = 16 * 1024;
/** What is given back at once: the system takes half a millisecond for it. */
const stepBytes = 4 * 2 ** 20;

/**
 * Gives back the memory of a piece of a body that nobody needs any more, where it
 * is all of its buffer. Left to lie, pieces of 64 KiB come to so much within a few
 * hundred milliseconds that V8 goes through its whole heap for them, which holds
 * everybody up for twenty.
 *
 * It is gone with the next turn of the event loop: until then Node's parser may be
 * in the middle of the same memory.
 */
export function dropPiece({ length, buffer }: Buffer): void {
	if (
		length >= largePieceBytes &&
		length === buffer.byteLength &&
		buffer instanceof ArrayBuffer
	)
		setImmediate(free, buffer);
}

/** Gives back the memory of a buffer that can be resized, little by little, beginning with its end. */
export function dropMemory(memory: ArrayBuffer): void {
	if (memory.byteLength <= stepBytes) {
		free(memory);
		return;
	}
	memory.resize(memory.byteLength - stepBytes);
	setImmediate(dropMemory, memory);
}

function free(memory: ArrayBuffer): void {
	// Of what is gone already there is nothing to give back.
	if (!memory.detached) memory.transferToFixedLength(0);
}
