import { Agent, request } from "undici";
import { isGatesNoPath, nobodysPath } from "../gate/wrongPath.ts";
import { codeOf } from "../net/errorCode.ts";
import { excerpt } from "../visible.ts";
import { listedModels } from "./listedModels.ts";

/** A call that went through, as a person would like to know it. */
export interface Success {
	readonly ok: true;
	readonly model: string;
	/** From the request to the first token. */
	readonly firstTokenMs: number;
	/** From the first token to the last line. */
	readonly streamMs: number;
	/** Lines with a piece of text. */
	readonly tokens: number;
	/** How many times something arrived; far fewer than `tokens` means that something on the way collects. */
	readonly arrivals: number;
}

/** A call that did not, with what that means and what to do. */
export interface Failure {
	readonly ok: false;
	/** The HTTP status; absent where there was no reply. */
	readonly status?: number;
	readonly problem: string;
	readonly advice: string;
}

const prompt = "Say hello in one short sentence.";
/** Enough to see a stream, little enough not to keep anybody waiting. */
const maxTokens = 48;

/**
 * Makes one real streamed call through the gate.
 *
 * @param model the model to ask; without one, the first that the server lists
 * @param onStart told the model before it is asked
 * @param onText told each piece of the reply as it arrives, without control characters
 */
export async function tryOut(
	server: string,
	key: string,
	model: string | undefined,
	onStart: (model: string) => void,
	onText: (text: string) => void,
): Promise<Success | Failure> {
	// A model may take minutes to load, and Ollama sends nothing before its first token.
	const agent = new Agent({
		connect: {
			timeout: 10_000,
			// Else NODE_TLS_REJECT_UNAUTHORIZED in the environment would switch it off.
			rejectUnauthorized: true,
		},
		headersTimeout: 15 * 60_000,
		bodyTimeout: 5 * 60_000,
	});
	const knock = (path: string, host?: string) =>
		request(`${server}${path}`, {
			dispatcher: agent,
			// Nothing has to be loaded for this one.
			headersTimeout: 30_000,
			...(host === undefined ? {} : { headers: { host } }),
		});
	const call = (path: string, body?: object) =>
		request(`${server}${path}`, {
			dispatcher: agent,
			method: body === undefined ? "GET" : "POST",
			headers: {
				authorization: `Bearer ${key}`,
				...(body === undefined ? {} : { "content-type": "application/json" }),
			},
			...(body === undefined ? {} : { body: JSON.stringify(body) }),
		});
	try {
		// The key is for a gate, and an answer with it would say that all is well.
		if (await answersAnybody(knock)) return unguarded(server);
		if (model === undefined) {
			const listed = await call("/api/tags");
			if (listed.statusCode !== 200)
				return await explainRefusal(listed, server, key, undefined);
			const list = readObject(await listed.body.text());
			const names = listedModels(list);
			if (names === undefined) return notOllama(server, listed.statusCode);
			[model] = names;
			if (model === undefined) return nothingToAsk(list?.models);
		}
		onStart(model);
		const startedAt = performance.now();
		const reply = await call("/api/chat", {
			model,
			messages: [{ role: "user", content: prompt }],
			stream: true,
			options: { num_predict: maxTokens },
		});
		if (reply.statusCode !== 200)
			return await explainRefusal(reply, server, key, model);
		return await readStream(
			reply.body,
			{ model, startedAt, key, server },
			onText,
		);
	} catch (error) {
		return explainNoReply(error, server);
	} finally {
		await agent.destroy();
	}
}

type Reply = Awaited<ReturnType<typeof request>>;

/**
 * Whether an Ollama lists its models to anyone who asks; on loopback it wants the
 * right Host of them besides (server/routes.go:allowedHostsMiddleware). A gate may
 * list them as well, to a device whose owner may log in without a key.
 */
async function answersAnybody(
	knock: (path: string, host?: string) => Promise<Reply>,
): Promise<boolean> {
	let host: string | undefined;
	let reply = await knock("/api/tags");
	let text = await reply.body.text();
	if (reply.statusCode === 403 && text === "") {
		host = "127.0.0.1:11434";
		reply = await knock("/api/tags", host);
		text = await reply.body.text();
	}
	if (reply.statusCode !== 200 || listedModels(readObject(text)) === undefined)
		return false;
	const lost = await knock(nobodysPath, host);
	return !isGatesNoPath(lost.statusCode, await lost.body.text());
}

function nothingToAsk(listed: unknown): Failure {
	const isEmpty = Array.isArray(listed) && listed.length === 0;
	return {
		ok: false,
		status: 200,
		problem: isEmpty
			? "the key is good, and the server has no model"
			: "the key is good, and no model that the server lists has a name of Ollama's form",
		advice: isEmpty
			? "On the server: ollama pull qwen3:8b"
			: "Look on the server what ollama list shows, and name one with --model.",
	};
}

function unguarded(server: string): Failure {
	return {
		ok: false,
		status: 200,
		problem: `${server} lists its models to anyone who asks, without a key: that is Ollama itself and no gate, open to everybody who reaches it. The key was not sent`,
		advice:
			"On the server, at once: sudo llamagate setup, and sudo llamagate doctor, which says what leads here",
	};
}

async function readStream(
	body: Reply["body"],
	call: { model: string; startedAt: number; key: string; server: string },
	onText: (text: string) => void,
): Promise<Success | Failure> {
	let firstAt: number | undefined;
	let tokens = 0;
	let arrivals = 0;
	let rest = "";
	let isDone = false;
	const decoder = new TextDecoder();
	const broken = (why: string): Failure => ({
		ok: false,
		status: 200,
		problem: `the stream began and broke off after ${tokens} tokens: ${why}`,
		advice: "On the server: journalctl -u llamagate -u ollama -n 50",
	});
	try {
		for await (const chunk of body) {
			const lines = (
				rest + decoder.decode(chunk as Buffer, { stream: true })
			).split("\n");
			rest = lines.pop() ?? "";
			let hasText = false;
			for (const line of lines) {
				if (line.trim() === "") continue;
				const part = readObject(line);
				if (part === undefined) return notOllama(call.server, 200);
				if (part.error !== undefined)
					return broken(excerpt(String(part.error), call.key));
				const message = isObject(part.message) ? part.message : {};
				const text = `${message.thinking ?? ""}${message.content ?? ""}`;
				if (text !== "") {
					firstAt ??= performance.now();
					tokens += 1;
					hasText = true;
					onText(stripControls(text));
				}
				isDone ||= part.done === true;
			}
			if (hasText) arrivals += 1;
		}
	} catch (error) {
		return broken(excerpt((error as Error).message, call.key));
	}
	if (!isDone) return broken("it ended without its last line");
	const endedAt = performance.now();
	return {
		ok: true,
		model: call.model,
		firstTokenMs: Math.round((firstAt ?? endedAt) - call.startedAt),
		streamMs: Math.round(endedAt - (firstAt ?? endedAt)),
		tokens,
		arrivals,
	};
}

/** What a status means, and what to do about it. */
async function explainRefusal(
	{ statusCode: status, headers, body }: Reply,
	server: string,
	key: string,
	model: string | undefined,
): Promise<Failure> {
	const said = excerpt(readError(await body.text()), key);
	const because = said === "" ? "" : `: ${said}`;
	const fail = (meaning: string, advice: string): Failure => ({
		ok: false,
		status,
		problem: `${meaning} (${status}${because})`,
		advice,
	});
	if (status === 400 && /this port speaks HTTPS/.test(said))
		return fail(
			"the server speaks HTTPS",
			"Give --server the https:// address that it names, port included.",
		);
	switch (status) {
		case 401:
			return fail(
				"the server does not know this key",
				"Paste it whole, without quotes. On the server, sudo llamagate keys list shows whether it was revoked or has run out; sudo llamagate keys add NAME makes a new one.",
			);
		case 403:
			if (/needs the scope/.test(said))
				return fail(
					"the key is known and may not do this",
					model === undefined
						? "It may not list models, so name one with --model; or, on the server: sudo llamagate keys add NAME --scopes read,infer"
						: "On the server, make one that may: sudo llamagate keys add NAME --scopes read,infer",
				);
			if (/may not use the model/.test(said))
				return fail(
					"the key is known and may not use this model",
					"Name one that it may use with --model, or have the key's models changed on the server.",
				);
			if (/" was replaced/.test(said))
				return fail(
					"the key has been replaced by a new one",
					"Use the one that was made then; on the server, sudo llamagate keys rotate NAME makes another.",
				);
			if (/" expired/.test(said))
				return fail(
					"the key has run out",
					"On the server: sudo llamagate keys rotate NAME --expires 90d",
				);
			return fail(
				"the server refuses this call",
				"Go by what it says. If it is about the address, reach it over the tailnet (tailscale status), or add this network to its sources.",
			);
		case 404:
			return model === undefined || /no such|route|path/i.test(said)
				? notOllama(server, status)
				: fail(
						`the key is good, and the server has no model ${model}`,
						`On the server: ollama pull ${model}. Or name another with --model; without it the first that the server has is taken.`,
					);
		case 429: {
			const after = headers["retry-after"];
			return fail(
				"too many requests, or too many wrong keys from this address",
				/^\d+$/.test(String(after ?? ""))
					? `Wait ${String(after)} s and try again.`
					: "Wait a few minutes and try again.",
			);
		}
		case 502:
		case 504:
			return fail(
				"llamagate is there, and Ollama behind it does not answer",
				"On the server: systemctl status ollama, then sudo llamagate check",
			);
		case 503:
			return fail("the server is busy or stopping", "Try again in a minute.");
		default:
			if (status >= 300 && status < 400)
				return fail(
					"something in front of the server redirects, which llamagate never does",
					"Name the address that llamagate listens on.",
				);
			return fail(
				"the server did not do it",
				status === 400
					? "If it says that the model cannot chat, name another with --model."
					: "On the server: journalctl -u llamagate -u ollama -n 50",
			);
	}
}

function notOllama(server: string, status: number): Failure {
	return {
		ok: false,
		status,
		problem: `something answers at ${server}, but not as llamagate or Ollama do (${status})`,
		advice:
			"Check host and port: llamagate listens on 11434 unless its configuration says otherwise.",
	};
}

const connectAdvice: Record<string, string> = {
	ECONNREFUSED:
		"The host is there and nothing listens on that port. On the server: systemctl status llamagate, then sudo llamagate check",
	ENOTFOUND:
		"No host has that name. Is this machine on the tailnet (tailscale status)? The server's 100.… address works without names.",
	EAI_AGAIN:
		"Names cannot be looked up now. The server's 100.… address works without names.",
	ECONNRESET:
		"The connection was closed without an answer. Over the tailnet, from an address in its sources, llamagate answers; so does it only speak HTTPS here?",
	UND_ERR_SOCKET:
		"The connection was closed without an answer. Over the tailnet, from an address in its sources, llamagate answers; so does it only speak HTTPS here?",
};

/** Why there was no reply at all. */
function explainNoReply(error: unknown, server: string): Failure {
	const code = codeOf(error);
	if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT")
		return {
			ok: false,
			problem: `${server} took the request and sent nothing for too long`,
			advice: "On the server: journalctl -u ollama -n 50, and ollama ps",
		};
	const isTls =
		/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_)|EPROTO/.test(
			code,
		);
	if (isTls)
		return {
			ok: false,
			problem: `no TLS connection to ${server} (${code})`,
			advice: /EPROTO|ERR_SSL/.test(code)
				? "llamagate speaks https:// where its configuration has listen.tls, or through what is in front of it, such as tailscale serve; otherwise write http:// in --server."
				: "Its certificate is not for that name, or not from an authority that this machine trusts. With one of Tailscale's, use the full name HOST.TAILNET.ts.net; a private authority goes into NODE_EXTRA_CA_CERTS.",
		};
	if (code.startsWith("HPE_"))
		return {
			ok: false,
			problem: `something answers at ${server}, and it does not speak HTTP (${code})`,
			advice: "If HTTPS is spoken there, write https:// in --server.",
		};
	return {
		ok: false,
		problem: `no connection to ${server} (${code})`,
		advice:
			connectAdvice[code] ??
			"Is this machine on the tailnet (tailscale status), and does the server answer tailscale ping?",
	};
}

function readError(text: string): string {
	const error = readObject(text)?.error;
	if (typeof error === "string") return error;
	return isObject(error) ? String(error.message ?? "") : "";
}

function readObject(text: string): Record<string, unknown> | undefined {
	try {
		const value: unknown = JSON.parse(text);
		return isObject(value) ? value : undefined;
	} catch {
		return undefined;
	}
}

function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A server must not move the cursor of its client. */
function stripControls(text: string): string {
	return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}]/gu, "");
}
