import t from "tap";
import { readCorpus, runGrown } from "./corpus.ts";
import { targets } from "./targets.ts";

for (const target of targets)
	t.test(
		`what is read of strangers stands its corpus: ${target.name}`,
		async (t) => {
			for (const input of [...target.seeds, ...readCorpus(target)])
				t.doesNotThrow(
					() => runGrown(target, input),
					JSON.stringify(input.slice(0, 60)),
				);
		},
	);
