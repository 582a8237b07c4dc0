import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { networkInterfaces } from "node:os";
import { request, secureRequest } from "../net/http.ts";
import { readSmallText } from "../net/smallReply.ts";
import type { ListeningSocket } from "./sockets.ts";

/** What a call without a key was answered with. */
export type Knock =
	| { readonly kind: "refused" }
	| { readonly kind: "silent" }
	/** TLS for those alone who say for which name they come. */
	| { readonly kind: "nameless" }
	| { readonly kind: "failed"; readonly code: string }
	| {
			readonly kind: "answer";
			readonly status: number;
			/** Empty where it broke off or was too long. */
			readonly body: string;
	  };

/**
 * GET of an address, as a client asks that knows that Ollama wants a Host of its
 * own: by plain HTTP, and over TLS, whose certificate may be anyone's, where a
 * port for TLS may have answered.
 *
 * @param timeoutMs for each of the two
 */
export async function knock(
	host: string,
	port: number,
	path: string,
	timeoutMs = 3_000,
): Promise<Knock> {
	const call = { host, port, path, timeoutMs };
	const { came, mayBeTls } = await ask(request, call);
	if (!mayBeTls) return came;
	const overTls = (await ask(secureRequest(), call)).came;
	return ["answer", "nameless"].includes(overTls.kind) ? overTls : came;
}

interface Call {
	readonly host: string;
	readonly port: number;
	readonly path: string;
	readonly timeoutMs: number;
}

async function ask(
	by: ReturnType<typeof secureRequest>,
	{ timeoutMs, ...place }: Call,
): Promise<{ came: Knock; mayBeTls: boolean }> {
	const req = by({
		...place,
		agent: false,
		headers: { host: "127.0.0.1:11434" },
		// Anyone who comes for Ollama does not mind, and nothing secret is sent.
		rejectUnauthorized: false,
		// Node takes 40 ms to read the authorities that it trusts.
		ca: [],
		signal: AbortSignal.timeout(timeoutMs),
	});
	// What comes after the answer is for nobody.
	req.on("error", () => {});
	try {
		const response = once(req, "response");
		req.end();
		const [res] = (await response) as [IncomingMessage];
		const body = await readSmallText(res).catch(() => "");
		const status = res.statusCode ?? 0;
		return {
			came: { kind: "answer", status, body },
			// As nginx and Go answer there, or with where to go.
			mayBeTls: /^(3\d\d|400|421|426)$/.test(String(status)),
		};
	} catch (error) {
		return {
			came: failureOf(error as Error),
			mayBeTls: !isOtherLanguage(error as Error),
		};
	} finally {
		req.destroy();
	}
}

function failureOf(error: NodeJS.ErrnoException): Knock {
	const { code = "", name, message } = error;
	if (code === "ECONNREFUSED") return { kind: "refused" };
	if (code === "ETIMEDOUT" || name === "AbortError") return { kind: "silent" };
	// internal_error, as Go's servers send it, and unrecognized_name.
	return /SSL alert number (80|112)\b/.test(message)
		? { kind: "nameless" }
		: { kind: "failed", code };
}

/** Whether nothing is there, or what answered greets in letters, as sshd and mail do, who would write each call down. TLS begins with a number. */
function isOtherLanguage({
	code,
	rawPacket,
}: NodeJS.ErrnoException & { readonly rawPacket?: Uint8Array }): boolean {
	const first = rawPacket?.[0];
	return code === "ECONNREFUSED" || (first !== undefined && first >= 0x20);
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
