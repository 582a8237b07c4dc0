/**
 * Setup's step of the firewall by itself, for tests: `look` tells what it would
 * do, `prove` what it proves, `set up` is both with all changes in between, and
 * `undo` takes them back. Runs where UFW is the test's own (prepareUfw).
 */
import { ufw } from "../../src/host/firewall/step.ts";
import { perform, takeBack } from "../../src/setup/change.ts";
import { Journal } from "../../src/setup/journal.ts";

const [task, folder = ""] = process.argv.slice(2);
const step = ufw();
const tell = (report: object) => console.log(JSON.stringify(report));

if (task === "look") tell(await step.inspect());
else if (task === "prove") tell(await step.prove());
else {
	const journal = await Journal.open(folder);
	if (task === "undo") {
		const left: string[] = [];
		for (const entry of journal.entries)
			left.push(...(await takeBack(entry, journal)).left);
		tell(left);
	} else {
		await journal.beginStep(step.id);
		for (const action of (await step.inspect()).actions)
			await perform(action, step.id, journal, () => {});
		await journal.endStep();
		tell(await step.prove());
	}
}
