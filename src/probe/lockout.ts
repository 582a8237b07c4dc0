import { setTimeout as delay } from "node:timers/promises";
import { generateKey } from "../keys/newKey.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import { type Caller, isReply, readError } from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";

/** As many as fail2ban's jail for the gate takes, and three times what the gate does by itself. */
export const maxTries = 30;

/** A server that is gone after so few may have died just then. */
const maxShownByAccident = 5;
const pauseMs = 200;

/** Codes of a connection that did not come about. */
const connectCodes = new Set([
	"ECONNREFUSED",
	"EHOSTUNREACH",
	"ENETUNREACH",
	"EACCES",
	"ETIMEDOUT",
	"UND_ERR_CONNECT_TIMEOUT",
]);

/** Asks three times without a key. @returns `undefined` if an answer came */
async function listen(
	caller: Caller,
): Promise<{ code: string; isShut: boolean } | undefined> {
	const codes: string[] = [];
	for (let i = 0; i < 3; i += 1) {
		await delay(pauseMs);
		const reply = await caller.call({ method: "GET", path: "/api/version" });
		if (isReply(reply)) return undefined;
		codes.push(reply.code);
	}
	return {
		code: [...new Set(codes)].join(", "),
		isShut: codes.every((code) => connectCodes.has(code)),
	};
}

/** Shows wrong keys until the gate has enough of it. They are made for this and belong to nobody. */
export async function checkLockout(caller: Caller): Promise<Result> {
	const check = checks.lockout;
	let lost = 0;
	for (let tried = 1; tried <= maxTries; tried += 1) {
		const reply = await caller.call({
			method: "GET",
			path: "/api/version",
			key: generateKey(),
		});
		if (!isReply(reply)) {
			const shown = tried - 1 - lost;
			const silence = await listen(caller);
			lost += 1;
			if (silence === undefined) continue;
			return silence.isShut && shown > maxShownByAccident
				? ok(
						check,
						`after ${shown} wrong keys this device is not answered any more (${silence.code}): the host has banned it, as fail2ban does`,
						"on the server: sudo fail2ban-client set llamagate unbanip ADDRESS",
					)
				: unknown(
						check,
						`after ${shown} wrong keys the gate stopped answering, which need not be a ban (${silence.code})`,
					);
		}
		if (reply.status === 401) continue;
		if (reply.status !== 429)
			return finding(
				check,
				[`a wrong key was answered ${reply.status} in place of 401`],
				"See the checks without a key: something else than the gate answers.",
			);
		const after = reply.headers["retry-after"] ?? "";
		const said = excerpt(readError("native", reply.body) ?? "");
		const seen = `after ${tried - 1 - lost} wrong keys: 429, "${said}"`;
		if (!/^[1-9]\d*$/.test(after) || said === "")
			return finding(
				check,
				[
					said === "" ? `after ${tried - 1 - lost} wrong keys: 429` : seen,
					said === ""
						? "the refusal is not an error of Ollama's API"
						: "Retry-After is missing, so clients do not know how long to wait",
				],
				"The gate sends both. Have the proxy before it leave headers and replies alone.",
			);
		return ok(
			check,
			seen,
			`this device is locked out for ${after} s from now, with any key`,
		);
	}
	return finding(
		check,
		[
			`${maxTries - lost} wrong keys within a minute, and each was answered 401`,
		],
		"On the server, set limits.authFailures.max to 10; if a proxy is before the gate, it sees the proxy's address alone.",
	);
}
