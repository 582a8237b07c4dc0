import { addAbortSignal, pipeline, Readable } from "node:stream";

/** As much as Ollama unpacks (server/cloud_proxy.go:maxDecompressedBodySize). */
export const maxUnpackedBytes = 20 * 2 ** 20;
/** The largest window that Ollama takes, 8 MiB, as a power of two. */
const maxWindowLog = 23;
const pieceBytes = 64 * 1024;

/** How the unpacking of a body has ended. */
export type Unpacked = "whole" | "unreadable" | "too_large";

/**
 * Unpacks a body of one zstd frame (RFC 8878) in pieces, outside of the event
 * loop. Ollama reads frame behind frame as one text, so more than one is refused.
 * While it runs it holds a window of up to 8 MiB, and by times one of the few
 * threads that files and names are read by.
 *
 * @param take what to do with each piece, the next of which comes when it is done; false if no more are wanted
 * @param signal ends it; what it returns then means nothing
 */
export async function unpack(
	body: Buffer,
	take: (piece: Buffer) => boolean | Promise<boolean>,
	signal: AbortSignal,
): Promise<Unpacked> {
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
		addAbortSignal(signal, unpacker);
		// A failure of either ends the other, and the reading below.
		pipeline(Readable.from(copies(body)), unpacker, () => {});
		for await (const piece of unpacker as AsyncIterable<Buffer>) {
			unpackedBytes += piece.length;
			if (unpackedBytes > maxUnpackedBytes) return "too_large";
			if (!(await take(piece))) return "whole";
		}
		// It stops behind the first frame, and says how much that was.
		return unpacker.bytesWritten === length ? "whole" : "unreadable";
	} catch {
		return "unreadable";
	} finally {
		unpacker.destroy();
	}
}

/** The body belongs to its request, and may be gone while another thread reads. */
function* copies(body: Buffer): Generator<Buffer> {
	for (let at = 0; at < body.length; at += pieceBytes)
		yield Buffer.from(body.subarray(at, at + pieceBytes));
}
