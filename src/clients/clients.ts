import { aiSdk } from "./aiSdk.ts";
import { claudeCode } from "./claudeCode.ts";
import type { Client } from "./client.ts";
import { cline } from "./cline.ts";
import { codex } from "./codex.ts";
import { aiCommits, openCommit } from "./commitMessages.ts";
import { continueDev } from "./continueDev.ts";
import { curl } from "./curl.ts";
import { langChain } from "./langChain.ts";
import { n8n } from "./n8n.ts";
import { nodeRed } from "./nodeRed.ts";
import { ollamaCli, ollamaJs, ollamaPython } from "./ollama.ts";
import { openaiJs, openaiPython } from "./openai.ts";
import { openClaw } from "./openClaw.ts";
import { openCode } from "./openCode.ts";
import { openWebUi } from "./openWebUi.ts";
import { promptfoo } from "./promptfoo.ts";
import { qwenCode } from "./qwenCode.ts";
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
	codex,
	openCode,
	qwenCode,
	cline,
	continueDev,
	vsCode,
	n8n,
	nodeRed,
	langChain,
	aiSdk,
	openCommit,
	aiCommits,
	promptfoo,
];
