import t from "tap";
import { testedOllama } from "../../../src/ollama/testedVersion.ts";
import { newestOllama } from "../parts.ts";
import { keepsContract } from "./realOllama.ts";

t.test(
	"the newest Ollama that is run is the one that doctor knows",
	async (t) => {
		t.equal(newestOllama, testedOllama);
	},
);

t.test(`Ollama ${newestOllama} keeps the contract`, (t) =>
	keepsContract(t, newestOllama),
);
