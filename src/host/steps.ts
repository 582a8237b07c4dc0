import type { Step } from "../setup/step.ts";
import type { Installation } from "../system/installation.ts";
import { bridges } from "./bridges/step.ts";
import { fail2ban } from "./fail2ban/step.ts";
import { ufw } from "./firewall/step.ts";
import { account } from "./gate/accountStep.ts";
import { gate } from "./gate/step.ts";
import { ollama } from "./ollama/step.ts";
import { openWebUi } from "./openWebUi/step.ts";
import { sshd } from "./sshd/step.ts";
import { tailscale } from "./tailscale/step.ts";

/** What a person may choose. */
export interface Choices {
	/** The first key's name. */
	readonly keyName: string;
	/** Whether Ollama is to leave ollama.com alone. */
	readonly noCloud: boolean;
	/** How many requests of a model Ollama is to work on at once; `undefined` for as it is. */
	readonly parallel: number | undefined;
}

/** All steps, in the order in which they are taken: what lets in comes before what shuts out. */
export function allSteps(
	installation: Installation,
	{ keyName, noCloud, parallel }: Choices,
): Step[] {
	return [
		account(installation, keyName, parallel),
		ollama(installation, { noCloud, parallel }),
		// A gate whose key files others may read does not start.
		bridges(installation),
		gate(installation),
		ufw(),
		tailscale(),
		openWebUi(),
		sshd(),
		fail2ban(installation),
	];
}
