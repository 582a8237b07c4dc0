import type { Route } from "../ollama/routes.ts";
import { maxUnpackedBytes } from "../ollama/zstd.ts";
import { type Facts, type FactsReader, unclear } from "./bodyFacts.ts";
import type { BodyGuard } from "./bodyGuard.ts";
import { tooManyLargeBodies } from "./bodyLimit.ts";
import type { Exchange } from "./exchange.ts";
import { badBody } from "./modelPolicy.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";
import type { GateState } from "./state.ts";

/** Who has to see what becomes of a packed body. */
export interface PackedReaders {
	readonly guard: BodyGuard | undefined;
	readonly facts: FactsReader | undefined;
}

/** What was found in a packed body. */
export interface PackedFinds {
	readonly refusal?: Refusal | undefined;
	readonly facts?: Facts | undefined;
}

const nothing = Buffer.alloc(0);

/** Whether Ollama unpacks a body before it reads it. */
export function isPacked(route: Route, head: Head): boolean {
	return route.unpacksZstd === true && head.contentEncoding[0] === "zstd";
}

/**
 * Unpacks a body once, for all who have to see what Ollama will read. What came
 * is passed on.
 *
 * @returns `undefined` if the request has ended meanwhile
 */
export async function readPacked(
	exchange: Exchange,
	{ unpackings }: Pick<GateState, "unpackings">,
	body: Buffer,
	{ guard, facts }: PackedReaders,
): Promise<PackedFinds | undefined> {
	const ended = new AbortController();
	exchange.atEnd(() => ended.abort());
	const end = await unpackings.unpack(
		exchange.knownCredential.key.name,
		body,
		(piece) => {
			const factsWantMore = facts?.push(piece) === true;
			return guard?.push(piece) ?? factsWantMore;
		},
		ended.signal,
	);
	switch (end) {
		case "left":
			return undefined;
		case "too_many":
			return { refusal: tooManyLargeBodies };
		case "too_large":
			return guard === undefined ? { facts: unclear } : { refusal: tooLarge };
		case "unreadable":
			return guard === undefined ? { facts: unclear } : { refusal: unreadable };
		case "whole":
			return { refusal: guard?.finish(nothing), facts: facts?.finish() };
	}
}

const tooLarge: Refusal = {
	status: 413,
	reason: "body_too_large",
	message: `the body may have at most ${maxUnpackedBytes} bytes unpacked`,
};
const unreadable = badBody(
	"the body is not one zstd frame of at most 8 MiB of window",
);
