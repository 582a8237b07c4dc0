import { account } from "./account.ts";
import { fail2ban } from "./fail2ban.ts";
import { gate } from "./gate.ts";
import type { Installation } from "./installation.ts";
import { ollama } from "./ollama.ts";
import { openWebUi } from "./openWebUi.ts";
import { sshd } from "./sshd.ts";
import type { Step } from "./step.ts";
import { tailscale } from "./tailscale.ts";
import { ufw } from "./ufw.ts";

/** What a person may choose. */
export interface Choices {
	/** The first key's name. */
	readonly keyName: string;
	/** Whether Ollama is to leave ollama.com alone. */
	readonly noCloud: boolean;
}

export const stepIds = [
	"account",
	"ollama",
	"gate",
	"ufw",
	"tailscale",
	"open-webui",
	"sshd",
	"fail2ban",
] as const;

/** All steps, in the order in which they are taken: what lets in comes before what shuts out. */
export function allSteps(
	installation: Installation,
	{ keyName, noCloud }: Choices,
): Step[] {
	return [
		account(installation, keyName),
		ollama(noCloud),
		gate(installation),
		ufw(),
		tailscale(),
		openWebUi(),
		sshd(),
		fail2ban(installation),
	];
}
