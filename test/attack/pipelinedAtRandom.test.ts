import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import t, { type Test } from "tap";
import { Random } from "../fuzz/random.ts";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import {
	chunk,
	head,
	openRaw,
	post,
	type RawClient,
	type RawReply,
	shows,
	splitReplies,
	statusOf,
} from "../support/raw.ts";

/**
 * Requests of all kinds sent at random one behind the other, by clients that split them
 * anywhere, read late or leave. What comes back is held against a simple model.
 */

const rounds = 360;
const atOnce = 12;
const owner = shows(testKeys.owner);

type OllamasAnswer = readonly [status: number, ...pieces: string[]];

/** What Ollama says to a request that has a mode and a name in its prompt. */
const modes: Readonly<Record<string, (name: string) => OllamasAnswer>> = {
	stream: (name) => [
		200,
		...["a", "b", "c"].map(
			(token) => `{"model":"m","response":"${name}${token}","done":false}\n`,
		),
		'{"model":"m","response":"","done":true}\n',
	],
	whole: (name) => [200, `{"model":"m","response":"${name}","done":true}`],
	long: (name) => [
		200,
		`{"model":"m","response":"${name}${"x".repeat(6_000)}","done":true}`,
	],
	large: (name) => [
		200,
		`{"model":"m","response":"${name}${"x".repeat(60_000)}","done":true}`,
	],
	error: (name) => [404, `{"error":"${name}"}`],
	death: () => [502],
};
const modeNames = [...Object.keys(modes), "stream", "long", "long"];

async function answer(
	res: ServerResponse,
	[status, ...pieces]: OllamasAnswer,
): Promise<void> {
	if (status === 502) return void res.destroy();
	const isStream = pieces.length > 1;
	res.writeHead(status, {
		"content-type": isStream ? "application/x-ndjson" : "application/json",
		...(!isStream && { "content-length": pieces.join("").length }),
	});
	if (!isStream) return void res.end(pieces[0]);
	for (const piece of pieces) {
		res.write(piece);
		await delay(2);
	}
	res.end();
}

interface Sent {
	readonly method: string;
	readonly kind: string;
	readonly bytes: string;
	/** What the reply must be, if its turn comes. */
	readonly status: number;
	/** By what Ollama knows it, and what Ollama says to it. */
	readonly name?: string;
	readonly body?: string;
}

function generate(random: Random, name: string): Sent {
	const mode = random.pick(modeNames);
	const spaces = " ".repeat(random.pick([0, 0, 5_000, 70_000]));
	const body = `{"model":"m","prompt":"${mode} ${name}"}${spaces}`;
	const plain = (...lines: string[]) =>
		post("/api/generate", body, owner, ...lines);
	const chunked = head(
		"POST /api/generate HTTP/1.1",
		"Host: gate",
		owner,
		"Transfer-Encoding: chunked",
	);
	const [how, bytes] = random.pick([
		["plain", plain()],
		["plain", plain()],
		["plain", plain()],
		["plain", plain()],
		["1.0", plain("Connection: keep-alive").replace("HTTP/1.1", "HTTP/1.0")],
		["expects", plain("Expect: 100-continue")],
		["expects", plain("Expect: 100-continue")],
		["closes", plain("Connection: close")],
		["chunked", `${chunked}${chunk(body)}0\r\n\r\n`],
	] as const);
	const [status = 0, ...pieces] = modes[mode]?.(name) ?? [];
	return {
		...{ method: "POST", kind: `${how} ${mode}`, bytes, status, name },
		...(pieces.length > 0 && { body: pieces.join("") }),
	};
}

function other(random: Random): Sent {
	const ask = (method: string, path: string, ...lines: string[]) => ({
		...{ method, kind: `${method} ${path}` },
		bytes: head(`${method} ${path} HTTP/1.1`, "Host: gate", ...lines),
	});
	const unwanted = "x".repeat(random.pick([10, 5_000, 70_000]));
	return random.pick([
		{ ...ask("GET", "/api/version", owner), status: 200 },
		{ ...ask("HEAD", "/api/version", owner), status: 200 },
		{ ...ask("GET", "/api/version"), status: 401 },
		{ ...ask("GET", "/api/nope", owner), status: 404 },
		{
			...{ method: "POST", kind: "a body for nobody", status: 404 },
			bytes: post("/api/nope", unwanted, owner),
		},
	]);
}

/** The final replies among what came, and what is left over. */
function split(text: string, sent: readonly Sent[]): [RawReply[], string] {
	const { replies, rest } = splitReplies(
		text,
		sent.map(({ method }) => method),
	);
	const got = replies.filter(({ status }) => status !== 100);
	const last = got.at(-1);
	const isToItsEnd =
		last?.headers.connection === "close" &&
		last.headers["content-length"] === undefined &&
		last.headers["transfer-encoding"] === undefined;
	// Without either, the connection's end is the reply's (RFC 9112, 6.3).
	return isToItsEnd
		? [[...got.slice(0, -1), { ...last, body: rest }], ""]
		: [got, rest];
}

/** What is wrong with what came, in words. @param leaves the client did not wait for all of it */
function judge(sent: readonly Sent[], text: string, leaves: boolean): string[] {
	const [got, rest] = split(text, sent);
	const wrong: string[] = [];
	const last = got.findIndex(({ headers }) => headers.connection === "close");
	if (last !== -1 && last < got.length - 1)
		wrong.push("a reply behind a close");
	if (got.length > sent.length) wrong.push("more replies than requests");
	for (const [index, { status, body }] of got.entries()) {
		const expected = sent[index];
		// Who closes their side before the reply is told that they are gone.
		const isGone = leaves && status === 499;
		if (isGone) continue;
		if (status !== expected?.status) wrong.push(`reply ${index} is ${status}`);
		const isOwn = expected?.body === undefined || body === expected.body;
		// Of who leaves, one that only the close ends may have come in part.
		if (!isOwn && !leaves) wrong.push(`reply ${index} is not its own`);
	}
	if (leaves) return wrong;
	if (rest !== "") wrong.push(`no reply: ${JSON.stringify(rest.slice(0, 60))}`);
	if (last === -1 && got.length < sent.length)
		wrong.push("replies are missing");
	return wrong;
}

/** Sends it in pieces that end anywhere. */
async function send(
	random: Random,
	client: RawClient,
	bytes: string,
): Promise<void> {
	let rest = bytes;
	while (rest !== "" && !client.isClosed()) {
		const size = random.below(2) === 0 ? rest.length : 1 + random.below(3_000);
		client.write(rest.slice(0, size));
		rest = rest.slice(size);
		if (random.below(2) === 0) await delay(random.pick([0, 0, 0, 0, 15]));
	}
}

/** Waits for all replies, or for the connection's end. */
async function takeAll(
	client: RawClient,
	sent: readonly Sent[],
): Promise<void> {
	await client.until((text) => {
		const [got] = split(text, sent);
		const closes = got.at(-1)?.headers.connection === "close";
		return got.length >= sent.length && !closes;
	});
}

/** An Ollama that answers as it is asked to, and how often it was asked for each name. */
async function startOllama(t: Test): Promise<[string, Map<string, number>]> {
	const runs = new Map<string, number>();
	const upstream = createServer((req, res) => {
		let body = "";
		req.setEncoding("latin1").on("data", (more) => {
			body += more;
		});
		req.on("end", async () => {
			const [, mode = "", name = ""] =
				/"prompt":"(\w+) (<\d+>)"/.exec(body) ?? [];
			runs.set(name, (runs.get(name) ?? 0) + 1);
			await delay([0, 0, 10, 40][body.length % 4]);
			await answer(res, modes[mode]?.(name) ?? [200, '{"version":"1"}']);
		});
	});
	await once(upstream.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		upstream.closeAllConnections();
		upstream.close();
	});
	const { port } = upstream.address() as AddressInfo;
	return [`http://127.0.0.1:${port}`, runs];
}

t.test(
	"requests sent at random one behind the other get their own replies, in turn and whole",
	async (t) => {
		const [upstreamUrl, runs] = await startOllama(t);
		const gate = await startGate(t, { upstreamUrl });

		/** A connection that does the same in every run. */
		const round = async (seed: number) => {
			const random = new Random(seed);
			const sent = Array.from({ length: 1 + random.below(8) }, (_, index) =>
				random.below(3) === 0
					? other(random)
					: generate(random, `<${seed * 10 + index}>`),
			);
			const leaves = random.below(7) === 0;
			const client = await openRaw(gate.port);
			const { socket } = client;
			if (random.below(5) === 0) {
				socket.pause();
				setTimeout(() => socket.resume(), 100);
			}
			await send(random, client, sent.map(({ bytes }) => bytes).join(""));
			if (leaves) {
				await delay(random.pick([0, 2, 20]));
				random.pick([
					() => socket.destroy(),
					() => socket.end(),
					() => socket.resetAndDestroy(),
				])();
				await client.closed;
			} else await takeAll(client, sent);
			const wrong = judge(sent, client.text(), leaves);
			const [got] = split(client.text(), sent);
			for (const [index, { name = "?" }] of sent.entries()) {
				const times = runs.get(name) ?? 0;
				if (times > 1) wrong.push(`request ${index} ran more than once`);
				if (times > 0 && !leaves && index >= got.length)
					wrong.push(`request ${index} ran and was not answered`);
			}
			const kinds = sent.map(({ kind }) => kind).join(", ");
			t.strictSame(wrong, [], `${seed}: ${kinds}`);
			client.destroy();
		};

		for (let first = 0; first < rounds; first += atOnce)
			await Promise.all(
				Array.from({ length: atOnce }, (_, index) => round(first + index)),
			);
		await eventually(async () => (await statusOf(gate)).streams === 0);
		t.notOk(
			gate.log.some(({ level }) => Number(level) >= 50),
			"and nothing has failed in the gate",
		);
	},
);
