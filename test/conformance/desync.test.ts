import t from "tap";
import { startWire } from "../support/wire.ts";
import { oddJoints, scenarios } from "./desyncCases.ts";
import { judge } from "./judge.ts";

for (const [what, cases] of [
	["no request is smuggled behind another", scenarios],
	["an odd byte in a framing header is read in one way only", oddJoints],
] as const)
	t.test(what, async (t) => {
		const wire = await startWire(t);
		for (const one of cases) {
			const verdict = await judge(wire, one, one.bytes);
			t.ok(verdict.held, `${one.id}: ${verdict.account.slice(0, 60)}`, {
				account: verdict.account,
			});
		}
	});
