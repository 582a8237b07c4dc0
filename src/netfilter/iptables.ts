import { parseAddress } from "../net/ranges.ts";
import type {
	BaseChain,
	Condition,
	Family,
	FilterRule,
	Verdict,
} from "./packetFilter.ts";
import { rangeOf } from "./ufwPackets.ts";

/** Which base chain hangs at which hook. */
const hooks: Readonly<Record<string, string>> = {
	PREROUTING: "prerouting",
	INPUT: "input",
	FORWARD: "forward",
	OUTPUT: "output",
	POSTROUTING: "postrouting",
};

/** When the base chains of a table are asked (linux/netfilter_ipv4.h). */
const priorities: Readonly<Record<string, number>> = {
	raw: -300,
	mangle: -150,
	nat: -100,
	filter: 0,
};
/** Chains of nat that are asked last: there where a packet comes from is translated. */
const natLast: Readonly<Record<string, number>> = {
	INPUT: 100,
	POSTROUTING: 100,
};

/** Rules that say nothing about where a packet ends. */
const passing = [
	"LOG",
	"NFLOG",
	"ULOG",
	"MARK",
	"CONNMARK",
	"TCPMSS",
	"TOS",
	"DSCP",
	"TTL",
	"HL",
	"CT",
	"CLASSIFY",
	"CHECKSUM",
	"SET",
	"TRACE",
	"CONNSECMARK",
	"SECMARK",
	"NOTRACK",
	"RATEEST",
	"AUDIT",
	"LED",
	"TEE",
	"IDLETIMER",
	"HMARK",
	"TCPOPTSTRIP",
	"ECN",
];

/** Matches of `-m` that have nothing to say by themselves. */
const silent = [
	"tcp",
	"udp",
	"multiport",
	"comment",
	"conntrack",
	"state",
	"addrtype",
	"mark",
	"icmp",
	"icmp6",
];

/** The words of a line, as a shell would have them. */
function wordsOf(line: string): string[] {
	return (line.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []).map((word) =>
		word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, "$1") : word,
	);
}

/**
 * Reads what `iptables -t TABLE -S` prints, with `iptables` or `ip6tables` as
 * `command`.
 *
 * @throws if it is something else
 */
export function parseIptables(
	output: string,
	command: string,
	table: string,
	family: Family,
): BaseChain[] {
	const policies = new Map<string, string>();
	const chains = new Map<string, FilterRule[]>();
	for (const line of output.split("\n")) {
		const words = wordsOf(line);
		const [what, chain = "", policy = ""] = words;
		if (what === undefined) continue;
		if (what === "-P") {
			policies.set(chain, policy);
			chains.set(chain, []);
		} else if (what === "-N") chains.set(chain, []);
		else if (what === "-A") {
			const ofTable = table === "filter" ? "" : ` -t ${table}`;
			chains.get(chain)?.push({
				text: `${command}${ofTable} ${line}`,
				chain,
				removal: `sudo ${command}${ofTable} -D ${line.slice("-A ".length)}`,
				...parseRule(words.slice(2)),
			});
		} else throw new Error(`${command} -S said what is not known: ${line}`);
	}
	return [...policies].flatMap(([name, policy]) => {
		const hook = hooks[name];
		return hook === undefined
			? []
			: {
					family,
					table,
					name,
					hook,
					chains,
					type: table === "nat" ? ("nat" as const) : ("filter" as const),
					priority:
						(table === "nat" ? natLast[name] : undefined) ??
						priorities[table] ??
						0,
					accepts: policy !== "DROP",
					rules: chains.get(name) ?? [],
				};
	});
}

function parseRule(
	words: readonly string[],
): Pick<FilterRule, "conditions" | "setsMark" | "verdict"> {
	const conditions: Condition[] = [];
	let index = 0;
	let negated = false;
	const value = () => words[++index] ?? "";
	const add = (condition: Condition) => {
		conditions.push(negated ? { ...condition, negated } : condition);
		negated = false;
	};
	for (; index < words.length; index++) {
		const word = words[index] ?? "";
		switch (word) {
			case "!":
				negated = true;
				break;
			case "-i":
				add({ on: "interfaceIn", names: [value()] });
				break;
			case "-s":
				add({ on: "from", ranges: [rangeOf(value())] });
				break;
			case "-d":
				add({ on: "to", ranges: [rangeOf(value())] });
				break;
			case "-p":
				add({ on: "protocol", names: protocols(value()) });
				break;
			case "--dport":
			case "--dports":
				add({ on: "port", ranges: value().split(",").map(portRange) });
				break;
			case "--ctorigdstport":
				add({ on: "originalPort", ranges: value().split(",").map(portRange) });
				break;
			case "--ctstate":
			case "--state":
				add({ on: "state", states: value().toLowerCase().split(",") });
				break;
			case "--dst-type":
				add({ on: "toType", types: value().toLowerCase().split(",") });
				break;
			case "--mark": {
				const [mark = 0, mask = 0xffff_ffff] = value().split("/").map(Number);
				add({ on: "mark", value: mark, mask });
				break;
			}
			case "--tcp-flags": {
				const [mask, set] = [value(), value()];
				add(
					set === "SYN" && mask.includes("SYN")
						? { on: "syn" }
						: { on: "other" },
				);
				break;
			}
			case "--syn":
				add({ on: "syn" });
				break;
			case "--icmp-type":
			case "--icmpv6-type":
			case "--comment":
				value();
				negated = false;
				break;
			case "-m":
				if (!silent.includes(value())) conditions.push({ on: "other" });
				break;
			case "-j":
			case "-g": {
				const target = value();
				const options = words.slice(index + 1);
				return {
					conditions,
					setsMark: setsMark(target, options),
					verdict: verdictOf(word, target, options),
				};
			}
			default:
				// An option of a match that is not known: it may hold or not.
				if (word.startsWith("-")) add({ on: "other" });
		}
	}
	// Without a target it only counts.
	return { conditions, setsMark: false, verdict: { kind: "continue" } };
}

/** What is saved only is as it was before. */
const setsMark = (target: string, options: readonly string[]) =>
	["MARK", "HMARK"].includes(target) ||
	(target === "CONNMARK" && !options.includes("--save-mark")) ||
	(target === "SET" && options.includes("--map-mark"));

/** A number in place of the name where /etc/protocols has none. */
function protocols(name: string): string[] {
	if (name === "6") return ["tcp"];
	if (name === "17") return ["udp"];
	return name === "all" || name === "0" ? ["tcp", "udp"] : [name];
}

function portRange(text: string): [number, number] {
	const [first = 0, last = first] = text.split(/[:-]/).map(Number);
	return [first, last];
}

function verdictOf(
	how: "-j" | "-g",
	target: string,
	options: readonly string[],
): Verdict {
	const option = (name: string) => options[options.indexOf(name) + 1] ?? "";
	switch (target) {
		case "ACCEPT":
			return { kind: "accept" };
		case "DROP":
		case "REJECT":
		case "TARPIT":
			return { kind: "drop" };
		case "RETURN":
			return { kind: "return" };
		case "NFQUEUE":
		case "QUEUE":
		case "SYNPROXY":
		case "TPROXY":
			return { kind: "unsure" };
		case "DNAT":
			return destination(option("--to-destination"));
		case "NETMAP":
			return { kind: "translate", to: "unknown", port: undefined };
		case "REDIRECT": {
			const port = Number.parseInt(option("--to-ports"), 10);
			return {
				kind: "translate",
				to: undefined,
				port: Number.isNaN(port) ? undefined : port,
			};
		}
	}
	if (passing.includes(target)) return { kind: "continue" };
	return { kind: how === "-j" ? "jump" : "goto", chain: target };
}

/** Reads `172.17.0.2:8080`, `[fd00::2]:8080`, `172.17.0.2-172.17.0.9:80-90`, `:8080`. */
function destination(text: string): Verdict {
	const [, bracketed, plain, port] =
		/^(?:\[(.+)\]|([^:]*|.*:.*:.*?))(?::(\d+))?$/.exec(text) ?? [];
	const address = bracketed ?? plain;
	return {
		kind: "translate",
		to: address === "" ? undefined : (parseAddress(address) ?? "unknown"),
		port: port === undefined ? undefined : Number(port),
	};
}
