import type { Examination } from "../doctor/check.ts";
import { bootExaminations } from "./boot/checks.ts";
import { bridgeExaminations } from "./bridges/checks.ts";
import { fail2banExaminations } from "./fail2ban/checks.ts";
import { firewallExaminations } from "./firewall/checks.ts";
import { gateExaminations } from "./gate/checks.ts";
import { ollamaExaminations } from "./ollama/checks.ts";
import { openWebUiExaminations } from "./openWebUi/checks.ts";
import { sshdExaminations } from "./sshd/checks.ts";
import { tailscaleExaminations } from "./tailscale/checks.ts";

/** Every check of `llamagate doctor`. */
export const examinations: readonly Examination[] = [
	...ollamaExaminations,
	...gateExaminations,
	...bridgeExaminations,
	...tailscaleExaminations,
	...firewallExaminations,
	...openWebUiExaminations,
	...sshdExaminations,
	...fail2banExaminations,
	...bootExaminations,
];
