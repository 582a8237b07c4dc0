import t from "tap";
import { testedOllama } from "../../src/ollama/testedVersion.ts";
import { runContract, subjects } from "../contract/contract.ts";
import { movedBetween } from "../contract/moved.ts";
import { newestOllama, ollamaVersions } from "./parts.ts";
import { realOllama } from "./realOllama.ts";
import { record } from "./record.ts";

t.test(
	"the newest Ollama that is run is the one that doctor knows",
	async (t) => {
		t.equal(newestOllama, testedOllama);
	},
);

for (const [index, version] of ollamaVersions.entries())
	t.test(`Ollama ${version} keeps the contract`, async (t) => {
		await runContract(t, realOllama(version));
		const before = ollamaVersions[index - 1];
		if (t.passing())
			record("ollama", "Ollama, by itself", {
				version,
				ran: [
					`the contract that the stand-in keeps too: ${subjects.join(", ")}`,
				],
				differs: before === undefined ? [] : movedBetween(before, version),
			});
	});
