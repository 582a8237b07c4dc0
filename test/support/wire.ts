import type { Test } from "tap";
import { startGate, type TestGate } from "./gate.ts";
import {
	type GoReading,
	type GoRequest,
	readRequestsLikeGo,
} from "./goHttp.ts";
import {
	honestStatus,
	openRaw,
	parseReplies,
	type RawReply,
	within,
} from "./raw.ts";
import {
	type RecordingUpstream,
	startRecordingUpstream,
} from "./recordingUpstream.ts";

/** What came of bytes that were sent to a gate. */
export interface Traffic {
	/** The final replies that came whole. */
	readonly replies: readonly RawReply[];
	/** The gate closed the connection of its own, and did not wait for more bytes. */
	readonly closed: boolean;
	/** Requests that reached the upstream whole. */
	readonly forwarded: readonly GoRequest[];
	/** What must not be: two readings of the same bytes. Empty if all is well. */
	readonly faults: readonly string[];
}

/** A gate in front of an upstream that keeps every byte. */
export interface Wire {
	readonly gate: TestGate;
	send(bytes: string): Promise<Traffic>;
}

const isHonest = ({ target }: GoRequest) => target === "/api/version";

/** Starts it. GET /api/version is what it asks for itself. */
export async function startWire(t: Pick<Test, "teardown">): Promise<Wire> {
	const upstream = await startRecordingUpstream(t);
	const gate = await startGate(t, {
		upstreamUrl: upstream.url,
		// A key with a byte changed is a wrong one, and this is about other things.
		config: { limits: { authFailures: { max: 1_000_000 } } },
	});
	let sent = 0;
	return {
		gate,
		send(bytes) {
			// An address that collects very many refusals has to wait for the next.
			sent += 1;
			return send(gate, upstream, bytes, `127.0.1.${sent % 250}`);
		},
	};
}

async function send(
	gate: TestGate,
	upstream: RecordingUpstream,
	bytes: string,
	from: string,
): Promise<Traffic> {
	const reading = readRequestsLikeGo(bytes);
	const client = await openRaw(gate.port, from);
	client.write(bytes);
	// A whole request gets a reply, or its connection an end; half a one may get neither.
	const methods = reading.requests.map(({ method }) => method);
	// A reply to HEAD has no body even where the request was refused.
	const asked = methods.length > 0 ? methods : [bytes.split(" ", 1)[0] ?? ""];
	const finalReplies = (text: string) =>
		parseReplies(text, asked).filter(({ status }) => status >= 200);
	await within(
		client.until((text) => finalReplies(text).length >= methods.length),
		`a reply to ${JSON.stringify(bytes.slice(0, 2000))}`,
	);
	if ((await honestStatus(gate)) !== 200)
		throw new Error("an honest request was not served");
	// Whoever says that it closes the connection does so soon, and not at once.
	if (finalReplies(client.text()).at(-1)?.headers.connection === "close")
		await within(client.closed, "the end that was announced");
	const closed = client.isClosed();
	// What the gate still says to a client that leaves in the middle is not about its bytes.
	const replies = finalReplies(client.text());
	client.socket.end();
	await within(
		client.closed,
		`the end of ${JSON.stringify(bytes.slice(0, 2000))}`,
	);
	const texts = await within(upstream.take(), "an upstream at rest");
	const faults: string[] = [];
	const forwarded: GoRequest[] = [];
	const cutOff: GoRequest[] = [];
	for (const text of texts) {
		const seen = readRequestsLikeGo(text);
		forwarded.push(...seen.requests.filter((one) => !isHonest(one)));
		if (seen.end === "refused")
			faults.push(`the upstream got what it refuses: ${JSON.stringify(text)}`);
		if (seen.partial !== undefined) cutOff.push(seen.partial);
		for (const request of seen.requests) faults.push(...oddities(request));
		if (seen.end !== "incomplete") faults.push(...unplain(text));
	}
	faults.push(
		...disagreements(bytes, forwarded, cutOff),
		...repliesTooMany(reading, replies),
		...unanswered(forwarded, replies),
	);
	return { replies, closed, forwarded, faults };
}

/** What the gate sends is written in one way only, byte for byte. */
function unplain(text: string): string[] {
	const again = readRequestsLikeGo(text).requests.map(
		({ method, target, headers, body }) => {
			const lines = [...headers].flatMap(([name, values]) =>
				values.map((value) => `${name}: ${value}\r\n`),
			);
			const sent =
				headers.has("transfer-encoding") && body !== "" ? undefined : body;
			return sent === undefined
				? undefined
				: `${method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n${headers.has("transfer-encoding") ? "0\r\n\r\n" : sent}`;
		},
	);
	// A chunked body may be cut anywhere; its head and its end were read as the reference reads.
	if (again.includes(undefined)) return [];
	return again.join("") === text
		? []
		: [`not written plainly: ${JSON.stringify(text)}`];
}

const passedOn = new Set([
	"host",
	"connection",
	"accept",
	"content-type",
	"user-agent",
	"anthropic-version",
	"anthropic-beta",
	"content-length",
	"transfer-encoding",
]);

function oddities({ target, version, headers, body }: GoRequest): string[] {
	const lengths = headers.get("content-length") ?? [];
	const codings = headers.get("transfer-encoding") ?? [];
	const faults: string[] = [];
	if (version !== "1.1" || !target.startsWith("/") || target.includes("?"))
		faults.push(`an odd request line: ${target} HTTP/${version}`);
	if (lengths.length + codings.length > 1)
		faults.push("more than one framing of a body");
	if (codings.length === 0 && (lengths[0] ?? "0") !== String(body.length))
		faults.push(`an odd length: ${lengths[0]}`);
	for (const name of headers.keys())
		if (!passedOn.has(name)) faults.push(`the header ${name} was passed on`);
	return faults;
}

/** A reply that nobody asked for would be taken for the next request's. */
function repliesTooMany(
	{ requests, end }: GoReading,
	replies: readonly RawReply[],
): string[] {
	const asked = requests.length + (end === "clean" || end === "closed" ? 0 : 1);
	const closesAt = replies.findIndex(
		({ headers }) => headers.connection === "close",
	);
	if (closesAt !== -1 && closesAt < replies.length - 1)
		return ["a reply behind one that closes the connection"];
	return replies.length > asked
		? [`${replies.length} replies to ${asked} requests`]
		: [];
}

/** Behind a reply that closes the connection nothing may run: who is not answered asks again. */
function unanswered(
	forwarded: readonly GoRequest[],
	replies: readonly RawReply[],
): string[] {
	const answered = replies.filter(({ status }) => status < 300).length;
	return replies.at(-1)?.headers.connection === "close" &&
		forwarded.length > answered
		? [`${forwarded.length} requests ran, and ${answered} were answered`]
		: [];
}

/** What was forwarded must be what the reference reads of the client's bytes, and no more. */
function disagreements(
	bytes: string,
	forwarded: readonly GoRequest[],
	cutOff: readonly GoRequest[],
): string[] {
	const { requests, partial } = readRequestsLikeGo(bytes);
	const expected = requests.filter((one) => !isHonest(one));
	const faults: string[] = [];
	const isSame = (one: GoRequest, other: GoRequest) =>
		one.method === other.method && one.target === other.target.split("?", 1)[0];
	for (const request of forwarded) {
		const at = expected.findIndex(
			(other) => isSame(request, other) && request.body === other.body,
		);
		if (at === -1)
			faults.push(
				`forwarded, but never sent: ${request.method} ${request.target} ${JSON.stringify(request.body)}`,
			);
		else expected.splice(at, 1);
	}
	for (const request of cutOff)
		if (
			![...expected, ...(partial ? [partial] : [])].some(
				(other) =>
					isSame(request, other) && other.body.startsWith(request.body),
			)
		)
			faults.push(
				`begun, but never sent: ${request.method} ${request.target} ${JSON.stringify(request.body)}`,
			);
	return faults;
}
