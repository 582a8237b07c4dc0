import { claudeCode } from "./claudeCode.ts";
import type { Client } from "./client.ts";
import { continueDev } from "./continueDev.ts";
import { curl } from "./curl.ts";
import { langChain } from "./langChain.ts";
import { n8n } from "./n8n.ts";
import { ollamaCli, ollamaJs, ollamaPython } from "./ollama.ts";
import { openaiJs, openaiPython } from "./openai.ts";
import { openClaw } from "./openClaw.ts";
import { openWebUi } from "./openWebUi.ts";
import { vsCode } from "./vsCode.ts";

/** Every client that `llamagate connect` knows, in the order of its list. */
export const clients: readonly Client[] = [
	openClaw,
	curl,
	ollamaCli,
	ollamaJs,
	ollamaPython,
	openaiJs,
	openaiPython,
	openWebUi,
	claudeCode,
	continueDev,
	vsCode,
	n8n,
	langChain,
];
