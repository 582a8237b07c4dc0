import { readFile } from "node:fs/promises";
import {
	absent,
	finding,
	type Outcome,
	ok,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { type Ending, wayIn } from "../../netfilter/evaluate.ts";
import type { Family, FilterRule } from "../../netfilter/packetFilter.ts";
import type { KernelFilter } from "../../system/kernelFilter.ts";
import { hasProgram } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import { describe, familyName, type Look, unspokenPort } from "./facts.ts";
import {
	type Firewall,
	isByCommand,
	isUfws,
	setupUfw,
	strangers,
	takeOut,
	ufwInputs,
} from "./fixes.ts";

/** Whether nothing of a family gets in but what a rule allows by name. */
function isShut(filter: KernelFilter, family: Family): boolean {
	return strangers(filter, unspokenPort(filter))
		.filter((packets) => packets.family === family)
		.every((packets) => wayIn(filter, packets).share === "none");
}

/**
 * Where INPUT was flushed, UFW takes itself for active, and neither "ufw reload"
 * nor "ufw disable" and "enable" hang its chains there again: it does so where
 * they do not exist (ufw-init-functions, ufw_start).
 */
function hookAgain(families: readonly Family[]): string {
	return [
		...families.map((family) => {
			const [command, type] =
				family === "ipv4" ? ["iptables", ""] : ["ip6tables", "6"];
			return `for chain in before-logging before after after-logging reject track; do sudo ${command} -A INPUT -j ufw${type}-$chain-input; done`;
		}),
		"sudo ufw reload",
	].join("; ");
}

const hasUfwChains = ({ baseChains }: KernelFilter) =>
	baseChains.some(({ chains }) => chains.has("ufw-user-input"));

export function judgeActive({ filter }: Look, hasUfw: boolean): Outcome {
	const without = filter.families.filter(
		(family) => ufwInputs(filter, family).length === 0,
	);
	// With IPV6=no UFW makes no rules for IPv6 and drops all of it (ufw-init-functions).
	const open = without.filter((family) => !isShut(filter, family));
	if (without.length === 0)
		return ok(
			`UFW's chains hang in INPUT, for ${filter.families.map((family) => familyName[family]).join(" and ")}`,
		);
	const names = without.map((family) => familyName[family]).join(" and ");
	if (open.length === 0)
		return without.includes("ipv4")
			? finding(
					[
						`${names}: INPUT does not lead to UFW's chains; what no rule allows is dropped all the same, and with it what UFW allows`,
					],
					{
						severity: "warn",
						...(hasUfwChains(filter) ? { fix: hookAgain(without) } : {}),
					},
				)
			: ok(
					"UFW's chains hang in INPUT for IPv4, and IPv6 is dropped altogether",
				);
	if (!hasUfw)
		return finding(["ufw is not installed, and nothing else shuts this host"], {
			fix: `sudo apt install ufw && ${setupUfw}`,
		});
	return finding(
		[
			`${names}: INPUT does not lead to UFW's chains, so none of its rules is in force`,
		],
		hasUfwChains(filter) ? { fix: hookAgain(without) } : {},
	);
}

/** UFW's own rules for what no other speaks of. */
const isForDefault = ({ chain }: FilterRule) =>
	/^ufw6?-(track|skip-to-policy)-input$/.test(chain);

export function judgeDefault(seen: Firewall): Outcome {
	const { filter } = seen;
	const port = unspokenPort(filter);
	const inputs = filter.families.flatMap((family) => ufwInputs(filter, family));
	const endings = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, port, protocol))
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(
			(ending) =>
				ending.packets.from[1] === 0 &&
				// What stands beside UFW's rules, firewall.order tells.
				(ending.rule === undefined ||
					isUfws(ending) ||
					!inputs.includes(ending.chain)),
		);
	if (endings.length === 0)
		return ok(
			`what no rule speaks of is dropped, on ${filter.outside.join(" and ")} (seen for port ${port})`,
		);
	const others = endings.filter(
		(ending) => ending.rule !== undefined && !isByCommand(ending),
	);
	const isByUfw = endings.some(
		(ending) =>
			ending.rule !== undefined &&
			isByCommand(ending) &&
			!isForDefault(ending.rule),
	);
	const hasUfw = filter.families.every(
		(family) => ufwInputs(filter, family)[0],
	);
	return finding(unique(endings.map(describe)), {
		...(isByUfw
			? { fix: "sudo ufw status numbered, then: sudo ufw delete NUMBER" }
			: others.length === endings.length
				? { fix: takeOut(seen, others) ?? setupUfw }
				: hasUfw
					? {}
					: { fix: setupUfw }),
	});
}

/** tailscaled's own port for what other devices send it, whichever that is. */
function isTailscaleds({ path, packets }: Ending): boolean {
	return path.includes("ts-input") && packets.protocol === "udp";
}

export function judgeOrder(seen: Look): Outcome {
	const { filter } = seen;
	const inputs = filter.families.flatMap((family) => ufwInputs(filter, family));
	if (inputs.length === 0)
		return absent("UFW is not in force (see firewall.active)");
	const beside = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, undefined, protocol))
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(
			(ending) =>
				inputs.includes(ending.chain) &&
				ending.rule !== undefined &&
				!isUfws(ending) &&
				!isTailscaleds(ending),
		);
	const rules = [...new Set(beside.flatMap(({ rule }) => rule ?? []))];
	if (rules.length === 0)
		return ok(
			"no rule but UFW's own lets a new connection in from outside the tailnet; what accepts in other tables leaves the decision to UFW's",
		);
	const all = beside.some(
		({ packets, share }) =>
			share === "all" && packets.port === undefined && packets.from[1] === 0,
	);
	return finding(unique(rules.map(({ text }) => text)), {
		severity: all ? "critical" : "high",
		fix: takeOut(seen, beside) ?? setupUfw,
	});
}

export async function judgeBoot(): Promise<Outcome> {
	if (!(await hasProgram("ufw"))) return absent("ufw is not installed");
	const file = "/etc/ufw/ufw.conf";
	const text = await readFile(file, "utf8").catch(() => undefined);
	if (text === undefined) return unknown(`${file} cannot be read`);
	const unit = await lookUpUnit("ufw.service");
	if (unit === undefined) return unknown("systemd does not answer here");
	if (!/^ENABLED=["']?yes["']?\s*$/im.test(text))
		return finding([`${file} has no ENABLED=yes`]);
	if (unit.isMasked)
		return finding(["ufw.service is masked: systemd does not start it"], {
			fix: "sudo systemctl unmask ufw.service && sudo systemctl enable ufw.service",
		});
	if (!unit.exists) return finding(["ufw.service does not exist"]);
	if (!unit.isEnabled)
		return finding(["ufw.service is not enabled"], {
			fix: "sudo systemctl enable ufw.service",
		});
	return ok(`ENABLED=yes in ${file}, and ufw.service is enabled`);
}
