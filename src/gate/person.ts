import type { Credential, Key } from "../keys/keyring.ts";
import { openWebUiToken, type PersonRule, rulesFor } from "../keys/people.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import type { Route } from "../ollama/routes.ts";
import type { Exchange } from "./exchange.ts";
import { checkModelInPath } from "./modelPolicy.ts";
import { type Grant, narrow } from "./narrow.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";
import {
	badToken,
	type Identified,
	readPerson,
	type Verdict,
} from "./token.ts";
import type { Person } from "./user.ts";

/** The headers of Open WebUI that name a person without a proof (0.12.4). */
const plainHeaders = {
	id: "x-openwebui-user-id",
	email: "x-openwebui-user-email",
	role: "x-openwebui-user-role",
};

/**
 * The part of step 5 that asks who of an app's people this is, where its key has
 * a rule about people, and what they may. It looks at the headers of such a key
 * alone, and a rule narrows what the key may do and never widens it.
 */
export async function checkPerson(
	state: GateState,
	exchange: Exchange,
): Promise<Refusal | undefined> {
	const { key } = exchange.knownCredential;
	if (key.people === undefined) return undefined;
	const verdict = await identifyPerson(state, exchange, key);
	if (verdict?.kind === "bad") {
		state.accessLog.badPersons += 1;
		return badToken(verdict.what);
	}
	if (verdict !== undefined) exchange.person = personOf(key, verdict.person);
	const { route, path } = exchange.routeMatch;
	const left = leaveTo(exchange.knownCredential, exchange.person, route);
	if ("status" in left) return left;
	exchange.credential = left;
	return checkModelInPath(left.key, route, path);
}

/** Whom the request names; `undefined` where it names nobody. */
async function identifyPerson(
	{ rules }: GateState,
	{ req }: Exchange,
	key: Key,
): Promise<Verdict | undefined> {
	const valuesOf = (name: string) =>
		req.rawHeaders.filter(
			(_, index, lines) =>
				index % 2 === 1 && lines[index - 1]?.toLowerCase() === name,
		);
	if (key.people?.jwt === undefined) return namedByHeaders(valuesOf);
	const [token, ...more] = valuesOf(
		key.people.jwt.header ?? openWebUiToken.header,
	);
	if (token === undefined) return undefined;
	if (more.length > 0) return { kind: "bad", what: "came twice" };
	const judge = rules.tokenJudges.get(key.name);
	return judge === undefined
		? { kind: "bad", what: "cannot be judged" }
		: judge(token, Date.now());
}

function namedByHeaders(
	valuesOf: (name: string) => readonly string[],
): Verdict | undefined {
	const ids = valuesOf(plainHeaders.id);
	const emails = valuesOf(plainHeaders.email);
	const roles = valuesOf(plainHeaders.role);
	if ([ids, emails, roles].some(({ length }) => length > 1))
		return { kind: "bad", what: "came twice" };
	const [email] = emails;
	const id = ids[0] || email || undefined;
	return id === undefined ? undefined : readPerson(id, email, roles[0]);
}

function personOf({ people }: Key, identified: Identified): Person {
	const { id, email, role } = identified;
	const shares = rulesFor(people?.rules ?? [], identified).flatMap(
		({ share }) => share ?? [],
	);
	return {
		id,
		name: email ?? id,
		by: people?.jwt === undefined ? "headers" : "jwt",
		email,
		role,
		...(shares.length > 0 && { share: Math.max(...shares) }),
	};
}

/**
 * What the rules of a key leave to a person, or to nobody in particular: the
 * credential as it is for this route, or why it is of no use.
 */
export function leaveTo(
	credential: Credential,
	person: Person | undefined,
	route: Route,
): Credential | Refusal {
	const { key } = credential;
	const { people } = key;
	if (people === undefined) return credential;
	const isUnknownServed = people.unknown === "key";
	// Whose device it is says nothing about who sits before the app.
	if (person === undefined || person.by === "login")
		return isUnknownServed ? credential : nobodyNamed(key);
	if (people.rules === undefined) return credential;
	const { email, role } = person;
	const rules = rulesFor(people.rules, { email, role });
	if (rules.length === 0)
		return isUnknownServed
			? credential
			: forbidden(
					"person",
					`no rule of the key "${key.name}" is for this person`,
				);
	const narrowed = narrow(
		key,
		rules.map((rule) => grantOf(rule, key)),
		route,
		"for this person",
	);
	return narrowed === undefined
		? forbidden(
				"person",
				`${route.id} needs the scope "${route.scope}", which no rule of the key "${key.name}" leaves to this person`,
			)
		: { ...credential, key: narrowed };
}

function grantOf(rule: PersonRule, key: Key): Grant {
	return {
		scopes: rule.scopes === undefined ? key.scopes : new Set(rule.scopes),
		// A pattern that cannot be read cannot get past the file's check; if it did, it would match nothing.
		models: rule.models?.map(
			(text) => parseModelPattern(text) ?? (() => false),
		),
	};
}

function nobodyNamed({ name, people }: Key): Refusal {
	const jwt = people?.jwt;
	return forbidden(
		"no_person",
		jwt === undefined
			? `the key "${name}" is for people whom its app names in ${plainHeaders.email}; in Open WebUI set ENABLE_FORWARD_USER_INFO_HEADERS=true`
			: `the key "${name}" is for people whom its app names in a signed ${jwt.header ?? openWebUiToken.header}; in Open WebUI set ENABLE_FORWARD_USER_INFO_HEADERS=true and FORWARD_USER_INFO_HEADER_JWT_SECRET`,
	);
}

function forbidden(reason: string, message: string): Refusal {
	return { status: 403, reason, message };
}
