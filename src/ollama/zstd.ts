import { pipeline, Readable } from "node:stream";

/** As much as Ollama unpacks (server/cloud_proxy.go:maxDecompressedBodySize). */
export const maxUnpackedBytes = 20 * 2 ** 20;
/** The largest window that Ollama takes, 8 MiB, as a power of two. */
const maxWindowLog = 23;
const pieceBytes = 64 * 1024;
/** Each holds a window, and one of the few threads that files and names are read by. */
const maxAtOnce = 2;

let running = 0;
const waiting: (() => void)[] = [];

/**
 * Unpacks a body of one zstd frame (RFC 8878) in pieces, outside of the event
 * loop. Ollama reads frame behind frame as one text, so more than one is refused.
 *
 * @param take what to do with each piece; false if no more are wanted
 */
export async function unpack(
	body: Buffer,
	take: (piece: Buffer) => boolean,
): Promise<"whole" | "unreadable" | "too_large"> {
	if (running >= maxAtOnce)
		await new Promise<void>((resolve) => waiting.push(resolve));
	else running += 1;
	// Loaded by those few who use it: the daemon starts without.
	const { constants, createZstdDecompress } =
		process.getBuiltinModule("node:zlib");
	const unpacker = createZstdDecompress({
		chunkSize: pieceBytes,
		params: { [constants.ZSTD_d_windowLogMax]: maxWindowLog },
	});
	const { length } = body;
	let unpackedBytes = 0;
	try {
		// A failure of either ends the other, and the reading below.
		pipeline(Readable.from(copies(body)), unpacker, () => {});
		for await (const piece of unpacker as AsyncIterable<Buffer>) {
			unpackedBytes += piece.length;
			if (unpackedBytes > maxUnpackedBytes) return "too_large";
			if (!take(piece)) return "whole";
		}
		// It stops behind the first frame, and says how much that was.
		return unpacker.bytesWritten === length ? "whole" : "unreadable";
	} catch {
		return "unreadable";
	} finally {
		unpacker.destroy();
		const next = waiting.shift();
		if (next === undefined) running -= 1;
		else next();
	}
}

/** The body belongs to its request, and may be gone while another thread reads. */
function* copies(body: Buffer): Generator<Buffer> {
	for (let at = 0; at < body.length; at += pieceBytes)
		yield Buffer.from(body.subarray(at, at + pieceBytes));
}
