import { createHmac } from "node:crypto";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import type { PeopleEntry } from "../../src/keys/people.ts";
import { testKeys } from "./gate.ts";

/** What an app signs with; 256 bits in hex, as its settings have it. */
export const appSecret = `${"0123456789abcdef".repeat(4)}`;
export const secretFile = "app.secret";
export const tokenHeader = "x-openwebui-user-jwt";

export const person = {
	sub: "3f2a1c9e-person",
	email: "me@example.com",
	name: "Me",
	role: "user",
};

/** Claims as Open WebUI 0.12.4 makes them, of now. */
export function claims(
	changes: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
	const now = Math.floor(Date.now() / 1000);
	return { ...person, iss: "open-webui", iat: now, exp: now + 300, ...changes };
}

const encode = (value: unknown) =>
	Buffer.from(
		typeof value === "string" ? value : JSON.stringify(value),
	).toString("base64url");

/** Signs a token by hand, so that it can be anything: claims that are text go in as they are. */
export function sign(
	payload: unknown,
	{
		secret = appSecret,
		header = { alg: "HS256", typ: "JWT" },
		hash = "sha256",
	}: { secret?: string; header?: unknown; hash?: string } = {},
): string {
	const signed = `${encode(header)}.${encode(payload)}`;
	return `${signed}.${createHmac(hash, secret).update(signed).digest("base64url")}`;
}

/** A key whose app signs who is asking. */
export function appKey(
	people: PeopleEntry = {},
	more: Partial<KeyEntry> = {},
): KeyEntry {
	return {
		name: "app",
		sha256: digestOf(testKeys.user),
		...more,
		people: people.trust ? people : { jwt: { secretFile }, ...people },
	};
}
