import {
	modelsSchema,
	scopesSchema,
	shareSchema,
} from "../config/ruleSchema.ts";
import type { Scope } from "../ollama/routes.ts";

/** Which people of an app a rule is for, and what it leaves them of the key. */
export interface PersonRule {
	/** An e-mail address; `*` in it matches any characters. */
	readonly email?: string;
	/** A role, as the app calls it. */
	readonly role?: string;
	/** Absent for the key's own, as are `scopes`. */
	readonly models?: readonly string[];
	readonly scopes?: readonly Scope[];
	/** How much of the machine such a person gets beside others; absent for the key's. */
	readonly share?: number;
}

/** That the app which has a key tells who is asking, and what each of those people may. */
export interface PeopleEntry {
	/** The app signs who is asking. */
	readonly jwt?: {
		/** The header that it sends the token in, lower case. */
		readonly header?: string;
		/** The file with the secret that it signs with, relative to the keys file. */
		readonly secretFile: string;
		/** What the token's `iss` must be. */
		readonly issuer?: string;
	};
	/** The app's plain headers are believed, so that it and anyone else who has the key may name anybody. */
	readonly trust?: "headers";
	/** Absent where every person may what the key may. */
	readonly rules?: readonly PersonRule[];
	/** What becomes of a request that names nobody, or a person no rule is for. */
	readonly unknown?: "refuse" | "key";
}

/** Where Open WebUI puts its token, and what it calls itself there (0.12.4). */
export const openWebUiToken = {
	header: "x-openwebui-user-jwt",
	issuer: "open-webui",
};

const text = (expected: string) => ({
	type: "string",
	minLength: 1,
	maxLength: 256,
	"x-expected": expected,
});

/** The shape of {@link PeopleEntry}. */
export const peopleSchema = {
	type: "object",
	additionalProperties: false,
	"x-expected": "an object with jwt or trust",
	properties: {
		jwt: {
			type: "object",
			additionalProperties: false,
			required: ["secretFile"],
			"x-expected": "an object with secretFile",
			properties: {
				header: {
					type: "string",
					pattern: "^x-(?!api-key$)[a-z0-9-]{1,62}$",
					"x-expected":
						"a header's name in lower case that begins with x- and is not x-api-key",
				},
				secretFile: text("a path"),
				issuer: text("what the token says as iss"),
			},
		},
		trust: { type: "string", enum: ["headers"], "x-expected": '"headers"' },
		rules: {
			type: "array",
			minItems: 1,
			"x-expected": "a list of rules",
			items: {
				type: "object",
				additionalProperties: false,
				"x-expected": "a rule with an email or a role",
				properties: {
					email: text(
						"an e-mail address such as me@example.com or *@example.com",
					),
					role: text("a role such as admin"),
					models: modelsSchema,
					scopes: scopesSchema,
					share: shareSchema,
				},
			},
		},
		unknown: {
			type: "string",
			enum: ["refuse", "key"],
			"x-expected": '"refuse" or "key"',
		},
	},
} as const;

/** A person whom an app has named. */
export interface Named {
	readonly email: string | undefined;
	readonly role: string | undefined;
}

/** The rules that are for a person; none for a stranger. */
export function rulesFor(
	rules: readonly PersonRule[],
	{ email, role }: Named,
): readonly PersonRule[] {
	return rules.filter(
		(rule) =>
			(rule.email === undefined ||
				(email !== undefined && isLike(email, rule.email))) &&
			(rule.role === undefined || rule.role === role),
	);
}

/** Whether a login or an e-mail is like a pattern, in which `*` matches any characters. */
export function isLike(name: string, pattern: string): boolean {
	const parts = lower(pattern).split("*");
	const [first = "", ...rest] = parts;
	const last = rest.pop();
	const given = lower(name);
	if (last === undefined) return given === first;
	if (
		given.length < first.length + last.length ||
		!given.startsWith(first) ||
		!given.endsWith(last)
	)
		return false;
	// The earliest place is always good enough, so this never goes back.
	let at = first.length;
	const end = given.length - last.length;
	for (const part of rest) {
		const found = given.indexOf(part, at);
		if (found === -1 || found + part.length > end) return false;
		at = found + part.length;
	}
	return true;
}

/** ASCII alone: to Unicode some letters of other alphabets are `k` or `s` in lower case. */
function lower(text: string): string {
	return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}
