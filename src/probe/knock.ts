import { connect, isIP } from "node:net";
import { connect as connectTls } from "node:tls";
import { codeOf } from "../net/errorCode.ts";
import { formatHostPort } from "../net/ranges.ts";
import { excerpt } from "../visible.ts";

const timeoutMs = 5_000;
const maxSaid = 16 * 2 ** 10;

/** What became of knocking at one port. */
export interface Knock {
	readonly address: string;
	readonly port: number;
	/** `closed`: refused. `filtered`: no answer, or a firewall's. `unreachable`: it is not known that anything was asked there. */
	readonly state: "open" | "closed" | "filtered" | "unreachable";
	/** Why there was no connection, where that is known. */
	readonly code?: string;
	/** The version that an Ollama without a key told. */
	readonly ollama?: string;
	/** It answers to a stranger's Host with 403, or over TLS alone: something leads others to it. */
	readonly isLedTo?: true;
	/** What else answered to the question for it, in short. */
	readonly other?: string;
	/** The port was asked, and what it said does not tell whether Ollama is there. */
	readonly isUnclear?: true;
}

type Language = "http" | "https";

/** How a port is asked for Ollama. */
export interface Asking {
	/** The name that was given, for servers that know several. */
	readonly host: string;
	/** What is spoken first; `undefined` for a port that is not asked. */
	language(port: number): Language | undefined;
}

/** Knocks at each of these ports of these addresses, all at once: one connection each, and more only to those that are open and asked. */
export async function knockAtAll(
	addresses: readonly string[],
	ports: readonly number[],
	asking: Asking,
): Promise<Knock[]> {
	const knocks = await Promise.all(
		addresses.flatMap((address) =>
			ports.map((port) => knock(address, port, asking)),
		),
	);
	const hasAnswered = answered(knocks);
	// These codes are a missing route's and a firewall's refusal (firewalld sends
	// the latter); where other ports answer there is a route.
	return knocks.map((one) =>
		/^(EHOSTUNREACH|EACCES)$/.test(one.code ?? "") &&
		hasAnswered.has(one.address)
			? { ...one, state: "filtered" }
			: one,
	);
}

/** The addresses of which at least one port gave an answer. */
export function answered(knocks: readonly Knock[]): Set<string> {
	return new Set(
		knocks
			.filter(({ state }) => state === "open" || state === "closed")
			.map(({ address }) => address),
	);
}

/** Eight connections at the most, one after the other. */
async function knock(
	address: string,
	port: number,
	{ host, language }: Asking,
): Promise<Knock> {
	const first = language(port);
	const at = { address, port };
	if (first === undefined) return { ...at, ...(await visit(at)).end };
	let end: Visit["end"] | undefined;
	let heard: Heard = { isUnclear: true };
	for (const spoken of [first, first === "http" ? "https" : "http"] as const) {
		// An Ollama on loopback that others are led to says so to a Host that it
		// does not know, and takes this one from anybody.
		for (const name of [formatHostPort(host, port), "127.0.0.1"]) {
			const asked = await askFor({ ...at, spoken, host, name });
			end ??= asked.end;
			if (end.state !== "open") return { ...at, ...end };
			if (asked.heard.ollama !== undefined) {
				const isLedTo = name === "127.0.0.1" || spoken === "https";
				return {
					...at,
					...end,
					...asked.heard,
					...(isLedTo ? { isLedTo } : {}),
				};
			}
			if (wantsOther(heard) && asked.heard.other !== undefined)
				heard = asked.heard;
			if (!asked.turnsAway) break;
		}
		if (!wantsOther(heard)) break;
	}
	// `end` is set: the loop ran.
	return { ...at, state: "open", ...end, ...heard };
}

/** A port for TLS closes on plain HTTP, or answers with 400 or where to go. */
function wantsOther({ other, isUnclear }: Heard): boolean {
	return isUnclear === true || /^HTTP (3\d\d|426)$/.test(other ?? "");
}

type Heard = Pick<Knock, "ollama" | "other" | "isUnclear">;

interface Place {
	readonly address: string;
	readonly port: number;
}

interface Question extends Place {
	readonly spoken: Language;
	/** For TLS, which chooses by it. */
	readonly host: string;
	/** For HTTP. */
	readonly name: string;
}

/**
 * Open WebUI has an /api/version of its own; the words at / are Ollama's, and so
 * is a list of models at /api/tags. That is asked for where a proxy has
 * something else at /, or closes after it.
 */
async function askFor(
	question: Question,
): Promise<{ end: Visit["end"]; heard: Heard; turnsAway: boolean }> {
	const { end, said } = await visit(question, ["/", "/api/version"]);
	const replies = readReplies(said);
	const [root] = replies;
	if (root === undefined)
		return { end, heard: { isUnclear: true }, turnsAway: false };
	const version = versionIn(said.slice(root.head.length));
	const ollama = excerpt(version ?? "of an unknown version");
	// Before the words is the length at the most, where a proxy sends chunks.
	if (
		root.status === 200 &&
		root.body.slice(0, 32).includes("Ollama is running")
	)
		return { end, heard: { ollama }, turnsAway: false };
	if (version !== undefined || replies.length < 2) {
		const [tags] = readReplies((await visit(question, ["/api/tags"])).said);
		if (tags?.status === 200 && startsAsTags.test(tags.body))
			return { end, heard: { ollama }, turnsAway: false };
		if (tags !== undefined) replies.push(tags);
	}
	return {
		end,
		heard: {
			other: `HTTP ${root.status}`,
			...(isUnclear(root.status) ? { isUnclear: true } : {}),
		},
		turnsAway: replies.some(({ status }) => status === 403),
	};
}

/** The question was not understood, or what is behind did not get it. */
function isUnclear(status: number): boolean {
	return status === 400 || status === 421 || status === 429 || status >= 500;
}

const startsAsTags = /^(?:[0-9a-f]{1,8}\r\n)?\s{0,9}\{\s{0,9}"models"\s{0,9}:/i;

function versionIn(text: string): string | undefined {
	return /"version"\s{0,9}:\s{0,9}"([^"]{1,99})"/.exec(text)?.[1];
}

interface HttpReply {
	readonly status: number;
	readonly head: string;
	/** With the next reply's, if that was not recognised. */
	readonly body: string;
}

/** Replies one after the other, told apart by their first lines alone; none where it begins otherwise. */
function readReplies(said: string): HttpReply[] {
	const replies: HttpReply[] = [];
	for (const text of said.split(/(?=HTTP\/1\.[01] \d{3}[ \r])/)) {
		const status = /^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1];
		if (status === undefined) break;
		const end = text.indexOf("\r\n\r\n");
		const head = end === -1 ? text : text.slice(0, end + 4);
		replies.push({
			status: Number(status),
			head,
			body: text.slice(head.length),
		});
	}
	return replies;
}

interface Visit {
	readonly end: Pick<Knock, "state" | "code">;
	readonly said: string;
}

/**
 * Opens one connection, and asks for these paths on it. It is closed again at
 * once, or after 5 s.
 */
function visit(
	place: Place | Question,
	paths: readonly string[] = [],
): Promise<Visit> {
	return new Promise((resolve) => {
		const { address, port } = place;
		const socket = connect({ host: address, port });
		let isOpen = false;
		let said = "";
		const end = (state: Knock["state"], code?: string) => {
			clearTimeout(timer);
			socket.destroy();
			resolve({
				end: { state, ...(code === undefined ? {} : { code }) },
				said,
			});
		};
		const timer = setTimeout(
			() => end(isOpen ? "open" : "filtered"),
			timeoutMs,
		);
		socket.once("connect", () => {
			isOpen = true;
			if (!("spoken" in place)) return end("open");
			const { spoken, host, name } = place;
			const stream =
				spoken === "http"
					? socket
					: connectTls({
							socket,
							...(isIP(host) === 0 ? { servername: host } : {}),
							// Anyone who comes for Ollama does not mind, and nothing secret is sent.
							rejectUnauthorized: false,
							// Node takes 40 ms to read the authorities that it trusts.
							ca: [],
						});
			stream.setEncoding("latin1");
			stream.on("data", (text: string) => {
				said += text;
				if (said.length > maxSaid) end("open");
			});
			stream.on("error", () => end("open"));
			stream.once("close", () => end("open"));
			stream.write(
				paths
					.map(
						(path, n) =>
							`GET ${path} HTTP/1.1\r\nhost: ${name}\r\n${n === paths.length - 1 ? "connection: close\r\n" : ""}\r\n`,
					)
					.join(""),
			);
		});
		socket.once("error", (error) => {
			if (isOpen) return end("open");
			end(stateOf(codeOf(error)), codeOf(error));
		});
	});
}

/** Only what the other side can have said, or silence, says anything about a port. */
function stateOf(code: string): Knock["state"] {
	switch (code) {
		case "ECONNREFUSED":
		case "ECONNRESET":
			return "closed";
		case "ETIMEDOUT":
			return "filtered";
		default:
			return "unreachable";
	}
}
