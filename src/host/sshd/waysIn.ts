import { finding, type Outcome, ok, unknown } from "../../doctor/check.ts";
import { outputOf } from "../../system/run.ts";
import {
	type InstalledKeys,
	installedKeys,
	settingsOfKeys,
} from "./authorizedKeys.ts";
import { loginUsers, type SettingsFor } from "./settings.ts";

/** How one user could log in over the network. */
export interface WayIn {
	readonly user: string;
	/** A file with a key that sshd would take. */
	readonly keyFile: string | undefined;
	/** Keys that it would not take, for people. */
	readonly refused?: readonly string[];
	/** A setting by which keys come from elsewhere, or passwords count. */
	readonly other: string | undefined;
}

/** How each user with a shell could log in, by what sshd says of every connection. */
export async function waysIn(all: readonly SettingsFor[]): Promise<WayIn[]> {
	const ways: WayIn[] = [];
	// The others get no shell by whatever they have.
	for (const user of loginUsers((await outputOf("getent", "passwd")) ?? "")) {
		// What a login from anywhere at all can use.
		const usable = all.filter(
			(one) => one.user === user && mayLogIn(one.user, one.settings),
		);
		const [first] = usable;
		if (first === undefined) continue;
		const { file, refused } = await keysFromAnywhere(user, usable);
		ways.push({ user, keyFile: file, refused, other: otherWay(usable) });
	}
	return ways;
}

/** A user's keys, from wherever sshd takes one; a Match block may have it take some kinds from one place alone. */
async function keysFromAnywhere(
	user: string,
	usable: readonly SettingsFor[],
): Promise<InstalledKeys> {
	let keys: InstalledKeys = { file: undefined, refused: [] };
	const asked = new Set<string>();
	for (const { settings } of usable) {
		if (settings.get("pubkeyauthentication") !== "yes") continue;
		const differs = JSON.stringify(settingsOfKeys.map((n) => settings.get(n)));
		if (asked.has(differs)) continue;
		asked.add(differs);
		keys = await installedKeys(user, settings);
		if (keys.file !== undefined) return keys;
	}
	return keys;
}

function otherWay(usable: readonly SettingsFor[]): string | undefined {
	for (const { settings } of usable)
		for (const name of ["authorizedkeyscommand", "trustedusercakeys"]) {
			const value = settings.get(name) ?? "none";
			if (value !== "none") return `${name} ${value}`;
		}
	return usable.some(
		({ settings }) => settings.get("passwordauthentication") === "yes",
	)
		? "a password"
		: undefined;
}

/** Whether the lists of names leave a user in; those of groups are left to sshd. */
export function mayLogIn(
	user: string,
	settings: ReadonlyMap<string, string>,
): boolean {
	if (user === "root" && settings.get("permitrootlogin") === "no") return false;
	const names = (list: string) =>
		(settings.get(list) ?? "").split(/\s+/).filter(Boolean);
	const fits = (pattern: string) => {
		const [name = ""] = pattern.split("@");
		const source = name
			.replace(/[.+^${}()|[\]\\]/g, "\\$&")
			.replaceAll("*", ".*")
			.replaceAll("?", ".");
		return new RegExp(`^${source}$`).test(user);
	};
	if (names("denyusers").some(fits)) return false;
	const allowed = names("allowusers");
	return allowed.length === 0 || allowed.some(fits);
}

export function judgeWayIn(
	ways: readonly WayIn[],
	tailscaleSsh: boolean,
): Outcome {
	const seen = [
		...ways.flatMap(({ user, keyFile }) =>
			keyFile === undefined ? [] : [`${user} has a key in ${keyFile}`],
		),
		...(tailscaleSsh ? ["Tailscale SSH is on"] : []),
	];
	if (seen.length > 0) return ok(...seen);
	const others = ways.flatMap(({ user, other }) =>
		other === undefined ? [] : [`${user} by ${other}`],
	);
	if (others.length > 0)
		return unknown(
			`no key lies on this host; there are other ways to log in: ${others.join(", ")}`,
		);
	return finding([
		"nobody has a key that sshd would take, passwords are off, and so is Tailscale SSH",
		...ways.flatMap(({ user, refused = [] }) =>
			refused.map((key) => `${user} has one that it refuses: ${key}`),
		),
	]);
}
