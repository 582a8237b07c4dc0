import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { describeLast } from "../../src/commands/status.ts";
import { keepResult, readLastResult } from "../../src/doctor/lastResult.ts";
import { toJson } from "../../src/report/json.ts";
import {
	idleLive,
	startDashboard,
	startFakeGate,
} from "../support/dashboard.ts";
import { lockedHost, openHost } from "../support/exampleResults.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const dayMs = 86_400_000;
const nowMs = Date.parse("2026-11-30T12:00:00Z");

async function place(t: Test): Promise<string> {
	return path.join(await temporaryFolder(t), "doctor.json");
}

/** What status says of a result of that age. */
async function afterDays(t: Test, days: number, results = lockedHost) {
	const file = await place(t);
	const at = new Date(nowMs - days * dayMs);
	await keepResult(
		toJson({ version: "0.1.0", at, target: "mini", results }),
		file,
	);
	return describeLast(await readLastResult(file), nowMs);
}

t.test("a look of today that found nothing serious is well", async (t) => {
	t.match(await afterDays(t, 0.5), { ok: true, says: /\(12 h ago\)$/ });
	t.match(await afterDays(t, 0.5, openHost), { ok: false });
});

t.test("a daily look that has stopped needs attention", async (t) => {
	t.match(await afterDays(t, 334), {
		ok: false,
		says: /\(334 d ago\); it should look every day, see: systemctl status llamagate-doctor\.timer$/,
	});
});

t.test("so does a result that is damaged or cannot be read", async (t) => {
	const file = await place(t);
	for (const text of ["", '{"results":', "null", '{"at":"today"}']) {
		await writeFile(file, text);
		t.match(describeLast(await readLastResult(file), nowMs), {
			ok: false,
			says: /is not a result of doctor's: .*; to have it made anew: sudo llamagate doctor --changes$/,
		});
	}
	const folder = await place(t);
	await mkdir(folder);
	t.match(describeLast(await readLastResult(folder), nowMs), {
		ok: false,
		says: /EISDIR/,
	});
});

t.test(
	"that it has not looked yet, or that another user may not read it, is no fault",
	async (t) => {
		const none = describeLast(await readLastResult(await place(t)), nowMs);
		t.match(none, { ok: undefined, says: /^has not looked yet; run: / });
		const why = "only root may read it";
		t.match(describeLast({ kind: "denied", why }, nowMs), {
			ok: undefined,
			says: why,
		});
	},
);

t.test("nor is an old look a green mark on the live page", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const doctorFile = path.join(gate.folder, "doctor.json");
	const results = lockedHost.filter(({ state }) => state === "ok");
	for (const [days, tone] of [
		[0, "ok"],
		[3, "unknown"],
	] as const) {
		const at = new Date(Date.now() - days * dayMs);
		await keepResult(
			toJson({ version: "0.1.0", at, target: "mini", results }),
			doctorFile,
		);
		const page = await startDashboard(t, gate, { doctorFile });
		const text = await (await fetch(page.url)).text();
		t.match(text, `<div class="headline ${tone}">`);
	}
});
