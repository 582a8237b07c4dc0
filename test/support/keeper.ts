import { createLog } from "../../src/log.ts";
import type { Certificate } from "../../src/tls/certificate.ts";
import { CertificateKeeper } from "../../src/tls/keeper.ts";
import { eventually, type LogLine } from "./gate.ts";
import { testClock } from "./testClock.ts";

/** A keeper on a clock of the test's, with what it has put in force and said. */
export function startKeeper(t: { teardown(action: () => unknown): unknown }) {
	const clock = testClock();
	const log: LogLine[] = [];
	const used: (Certificate | "coming" | undefined)[] = [];
	const keeper = new CertificateKeeper({
		log: createLog("info", { write: (line) => log.push(JSON.parse(line)) }),
		clock,
		use: (certificate) => used.push(certificate),
	});
	t.teardown(() => keeper.stop());
	return {
		...{ clock, log, used, keeper },
		current() {
			const last = used.at(-1);
			return last === "coming" ? undefined : last;
		},
		/** Has the next look made, to its end. */
		async look() {
			clock.next();
			await eventually(() => clock.nextMs() !== undefined);
		},
	};
}
