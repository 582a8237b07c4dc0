import { bootExaminations } from "./boot.ts";
import type { Examination } from "./examination.ts";
import { fail2banExaminations } from "./fail2ban.ts";
import { firewallExaminations } from "./firewall.ts";
import { gateExaminations } from "./gate.ts";
import { ollamaExaminations } from "./ollama.ts";
import { openWebUiExaminations } from "./openWebUi.ts";
import { sshdExaminations } from "./sshd.ts";
import { tailscaleExaminations } from "./tailscale.ts";

/** Every check of `llamagate doctor`. */
export const examinations: readonly Examination[] = [
	...ollamaExaminations,
	...gateExaminations,
	...tailscaleExaminations,
	...firewallExaminations,
	...openWebUiExaminations,
	...sshdExaminations,
	...fail2banExaminations,
	...bootExaminations,
];
