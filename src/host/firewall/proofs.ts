import { unique } from "../../doctor/check.ts";
import { wayIn } from "../../netfilter/evaluate.ts";
import type { Family } from "../../netfilter/packetFilter.ts";
import { tailnet } from "../../netfilter/ufwPackets.ts";
import type { Proof } from "../../setup/step.ts";
import { describe, familyName, type Look, lookAnew } from "./facts.ts";
import { fixFor, peers, setupUfw, strangers, ufwInputs } from "./fixes.ts";

const ollamaPort = 11434;
const seeDoctor =
	"see: sudo llamagate doctor --explain firewall.ollama-port; then run this again";

/**
 * Whether Ollama's port is open on tailscale0 and shut everywhere else by all of
 * the rules that the kernel has, whoever made them.
 *
 * @param dropsIpv6 whether UFW's settings say that it makes no rules for IPv6
 */
export async function proveOllamaPort(dropsIpv6: boolean): Promise<Proof[]> {
	try {
		const seen = await lookAnew();
		return seen.filter.families.map((family) => judge(seen, family, dropsIpv6));
	} catch (error) {
		return [
			{
				ok: false,
				says: `whether port ${ollamaPort} is shut is not known: ${error instanceof Error ? error.message : String(error)}`,
				advice: seeDoctor,
			},
		];
	}
}

function judge(seen: Look, family: Family, dropsIpv6: boolean): Proof {
	const { filter } = seen;
	const name = familyName[family];
	const hangs = ufwInputs(filter, family).length > 0;
	// With IPV6=no UFW makes no chains for IPv6 and drops all of it (ufw-init-functions).
	const isWithoutChains = family === "ipv6" && dropsIpv6;
	// Anyone who empties INPUT takes UFW's way in with it, and UFW still calls itself active.
	if (!hangs && !isWithoutChains)
		return {
			ok: false,
			says: `${name}: nothing leads from INPUT to UFW's rules`,
			advice:
				"something has emptied INPUT; a reboot brings UFW's rules back (see also: llamagate doctor --explain firewall.active)",
		};
	const endings = strangers(filter, ollamaPort)
		.filter((packets) => packets.family === family)
		.flatMap((packets) => wayIn(filter, packets).by);
	if (endings.length > 0) {
		const fix = fixFor(seen, endings, ollamaPort);
		return {
			ok: false,
			says: `${name}: port ${ollamaPort} is open to others than the tailnet: ${unique(endings.map(describe)).join("; ")}`,
			advice: fix === setupUfw ? seeDoctor : fix,
		};
	}
	if (isWithoutChains)
		return {
			ok: true,
			says: `${name}: port ${ollamaPort} is shut, as UFW drops all of ${name} here`,
		};
	const isOpen =
		wayIn(filter, peers(tailnet, family, ollamaPort)).share !== "none";
	return isOpen
		? {
				ok: true,
				says: `${name}: port ${ollamaPort} is open on ${tailnet} and shut everywhere else`,
			}
		: {
				ok: false,
				says: `${name}: port ${ollamaPort} is shut on ${tailnet} too`,
				advice: `a rule ahead of UFW's for ${tailnet} drops it; ${seeDoctor}`,
			};
}
