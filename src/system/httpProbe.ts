import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { networkInterfaces } from "node:os";
import { request } from "../net/http.ts";
import { readSmallText } from "../net/smallReply.ts";
import type { ListeningSocket } from "./sockets.ts";

/** What a call without a key was answered with. */
export type Knock =
	| { readonly kind: "refused" }
	| { readonly kind: "silent" }
	| { readonly kind: "failed"; readonly code: string }
	| {
			readonly kind: "answer";
			readonly status: number;
			/** Empty where it broke off or was too long. */
			readonly body: string;
	  };

/** GET of an address, as a client asks that knows that Ollama wants a Host of its own. */
export async function knock(
	host: string,
	port: number,
	path: string,
	timeoutMs = 3_000,
): Promise<Knock> {
	const req = request({
		host,
		port,
		path,
		agent: false,
		headers: { host: "127.0.0.1:11434" },
		signal: AbortSignal.timeout(timeoutMs),
	});
	// What comes after the answer is for nobody.
	req.on("error", () => {});
	try {
		const response = once(req, "response");
		req.end();
		const [res] = (await response) as [IncomingMessage];
		const body = await readSmallText(res).catch(() => "");
		return { kind: "answer", status: res.statusCode ?? 0, body };
	} catch (error) {
		const { code = "", name } = error as NodeJS.ErrnoException;
		if (code === "ECONNREFUSED") return { kind: "refused" };
		return code === "ETIMEDOUT" || name === "AbortError"
			? { kind: "silent" }
			: { kind: "failed", code };
	} finally {
		req.destroy();
	}
}

type Interfaces = ReturnType<typeof networkInterfaces>;

/**
 * An address of this host at which this socket takes a call, and no other of its
 * port does; `undefined` if there is none. A socket that is bound to an interface
 * takes what is sent to that one's addresses, from this host as well.
 */
export function callAddress(
	socket: ListeningSocket,
	all: readonly ListeningSocket[],
	interfaces: Interfaces = networkInterfaces(),
): string | undefined {
	const { address, device, port } = socket;
	if (!isWildcard(socket))
		return address.startsWith("fe80:") && device !== undefined
			? `${address}%${device}`
			: address;
	const rivals = all.filter((other) => other !== socket && other.port === port);
	const own = Object.entries(interfaces)
		.filter(([name]) =>
			device === undefined
				? !rivals.some((other) => other.device === name)
				: name === device,
		)
		.flatMap(([name, addresses = []]) =>
			addresses.map((one) => ({ ...one, name })),
		)
		.filter(
			({ address: one, family }) =>
				(address === "*" || (family === "IPv4") === (address === "0.0.0.0")) &&
				!rivals.some((other) => other.address === one),
		);
	const [first] = own.toSorted(
		(a, b) => Number(b.internal) - Number(a.internal),
	);
	if (first === undefined) return undefined;
	return first.address.startsWith("fe80:")
		? `${first.address}%${first.name}`
		: first.address;
}

/** Whether a socket takes calls to any address, of one family or of both. */
export function isWildcard({
	address,
}: Pick<ListeningSocket, "address">): boolean {
	return ["*", "0.0.0.0", "::"].includes(address);
}

/** How many are asked at a time. */
const atOnce = 16;

/** Asks about all of them, a few at a time; the answers are in their order. */
export async function askEach<T, A>(
	all: readonly T[],
	ask: (one: T, index: number) => Promise<A>,
): Promise<A[]> {
	const answers: A[] = [];
	const waiting = all.entries();
	await Promise.all(
		Array.from({ length: atOnce }, async () => {
			for (const [index, one] of waiting)
				answers[index] = await ask(one, index);
		}),
	);
	return answers;
}
