import { isGatesNoPath, nobodysPath } from "../gate/wrongPath.ts";
import { codexHealth, isCodexHealth } from "../ollama/codexHealth.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	asLocal,
	type Caller,
	isReply,
	type NoReply,
	openCaller,
	type Reply,
	readError,
	readObject,
} from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";

/** One address of the gate, and what it said to the first call. */
export interface Door {
	readonly address: string;
	readonly caller: Caller;
	readonly first: Reply | NoReply;
	/** An Ollama that answers everybody. */
	readonly isBare: boolean;
	/** One that does so only for a Host of its own, which everybody can send. */
	readonly wantsHost: boolean;
	/** A gate that answers this device as Ollama does, without a key. */
	readonly letsIn: boolean;
}

export function noGate(first: Reply | NoReply): string {
	if (!isReply(first)) return `the server did not answer (${first.code})`;
	return first.status === 429
		? "this device is locked out for now"
		: "no gate answers here";
}

const firstCall = { method: "GET", path: "/api/version" };

export async function openDoor(origin: string, address: string): Promise<Door> {
	const caller = openCaller(origin, [address]);
	const first = await caller.call(firstCall);
	// An Ollama on loopback that others are led to says so to a Host that it does not know.
	if (isReply(first) && first.status === 403 && first.body === "") {
		const local = asLocal(caller);
		const again = await local.call(firstCall);
		if (await isBare(local, again))
			return {
				address,
				caller: local,
				first: again,
				isBare: true,
				letsIn: false,
				wantsHost: true,
			};
	}
	const isOpen = await isBare(caller, first);
	const letsIn = isOpen && (await isGate(caller));
	return {
		address,
		caller,
		first,
		wantsHost: false,
		isBare: isOpen && !letsIn,
		letsIn,
	};
}

/** Whether what answers without a key has a gate before it all the same. */
async function isGate(caller: Caller): Promise<boolean> {
	const lost = await caller.call({ method: "GET", path: nobodysPath });
	return isReply(lost) && isGatesNoPath(lost.status, lost.body);
}

/**
 * Open WebUI has an /api/version of its own; the words at / are Ollama's, and so
 * is what newer ones answer at `codexHealth`. Where only / is guarded, there is
 * an Ollama behind it all the same.
 */
export async function isBare(
	caller: Caller,
	first: Reply | NoReply,
): Promise<boolean> {
	if (!isReply(first) || first.status !== 200) return false;
	if (typeof readObject(first.body)?.version !== "string") return false;
	const root = await caller.call({ method: "GET", path: "/" });
	if (
		isReply(root) &&
		(root.status === 401 || /^Ollama is running/.test(root.body))
	)
		return true;
	const health = await caller.call({ method: "GET", path: codexHealth });
	return isReply(health) && isCodexHealth(health.status, health.body);
}

export function judgeFirst(
	{ first, isBare, letsIn, wantsHost, address }: Door,
	origin: string,
): Result {
	const check = checks.reachable;
	const where = `${origin} (${address})`;
	if (!isReply(first))
		return finding(
			check,
			[`no answer from ${where}: ${first.code}`],
			adviceFor(first.code),
		);
	// That it does so is told where calls without a key are.
	if (letsIn) return ok(check, where, "it lets this device in without a key");
	const { status, headers, body } = first;
	const said = excerpt(readError("native", body) ?? "");
	const seen = `GET /api/version at ${where}: ${status}${said === "" ? "" : `, "${said}"`}`;
	if (status === 401)
		return /realm="llamagate"/.test(headers["www-authenticate"] ?? "")
			? ok(check, where)
			: ok(check, where, "it does not call itself llamagate");
	if (status === 429)
		return unknown(
			check,
			seen,
			`wait ${excerpt(headers["retry-after"] ?? "some")} s and try again`,
		);
	if (isBare)
		return finding(
			check,
			[
				`${where}: Ollama ${excerpt(String(readObject(body)?.version))} answers without a key`,
				...(wantsHost
					? [
							"it is on the server's loopback, and something there leads others to it: tailscaled without a tunnel device (userspace networking), tailscale serve, a tunnel or a proxy. Its check of the Host header stops nobody: 127.0.0.1 was sent",
						]
					: []),
			],
			wantsHost
				? "On the server, at once: sudo llamagate doctor --only ollama --only tailscale, which names what leads here; until that is mended: sudo systemctl stop ollama"
				: "On the server, at once: sudo llamagate setup",
		);
	if (status === 400 && /this port speaks HTTPS/.test(said))
		return finding(
			check,
			[seen],
			"It is a gate that speaks HTTPS: probe the https:// address that it names, port included.",
		);
	if (status === 403 && /not on the gate's network/.test(said))
		return finding(
			check,
			[seen],
			"Reach it over the tailnet (tailscale status), by its 100.… address or its name there.",
		);
	return finding(
		check,
		[seen, "that is neither a gate nor Ollama"],
		"Check host and port: llamagate listens on 11434 unless its configuration says otherwise.",
	);
}

function adviceFor(code: string): string {
	if (code === "ECONNREFUSED")
		return "The host is there and nothing listens on that port, or fail2ban has banned this device. On the server: systemctl status llamagate, then sudo llamagate check";
	if (
		/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED)|EPROTO/.test(
			code,
		)
	)
		return "llamagate speaks http:// unless listen.tls says otherwise; with https:// its certificate, or that of what is in front of it, must be good for that name: use the whole name, not the address (on the server: sudo llamagate status).";
	if (
		code.startsWith("HPE_") ||
		code === "UND_ERR_SOCKET" ||
		code === "ECONNRESET"
	)
		return "Something is there that speaks no HTTP, or does not speak to this device. If it is HTTPS, write https://.";
	return "Is this device in the tailnet (tailscale status), does the server answer tailscale ping, and does the tailnet's policy allow it (llamagate policy print)?";
}
