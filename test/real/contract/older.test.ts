import t from "tap";
import { newestOllama, ollamaVersions } from "../parts.ts";
import { keepsContract } from "./realOllama.ts";

for (const version of ollamaVersions)
	if (version !== newestOllama)
		t.test(`Ollama ${version} keeps the contract`, (t) =>
			keepsContract(t, version),
		);
