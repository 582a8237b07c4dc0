import { writeFile } from "node:fs/promises";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import t, { type Test } from "tap";
import { formatPlan } from "../../src/commands/setupText.ts";
import { withTls } from "../../src/host/gate/tlsStep.ts";
import { withParallel } from "../../src/host/ollama/parallel.ts";
import { type FileAction, todo } from "../../src/setup/step.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

/** What a plan shows of a file that is to be changed. */
async function shown(
	t: Test,
	before: string,
	content: string,
	mode = 0o640,
): Promise<string> {
	const file = path.join(await temporaryFolder(t), "config.json");
	await writeFile(file, before);
	const step = { id: "ollama", title: "a step", why: "since" } as const;
	const action: FileAction = {
		...{ kind: "file", path: file, content },
		...{ user: "root", group: "llamagate", mode },
	};
	const inspect = async () => todo("to do", [action]);
	return stripVTControlCharacters(
		await formatPlan(
			{ ...step, inspect, prove: async () => [] },
			await inspect(),
		),
	);
}

const url = "https://me:tk_0123456789@ntfy.example/gpu-8f3c1e0b9d";
const secret = /tk_|gpu-8f/;

t.test("a plan shows nothing of an alarm's address but its host", async (t) => {
	for (const alarm of [
		`"alarms": [{ "url": "${url}" }]`,
		`"alarms": [ // was ${url}/old`,
		`"alarms": [{ "url": "${url.replaceAll("/", "\\/")}" }]`,
		`"alarms": [{ "url": "\\u0068ttps:${url.slice(6)}" }]`,
		`"alarms": [{ "form": "ntfy", "urlFile": "${url}" }]`,
	]) {
		const rest = alarm.endsWith("]") ? "" : "\n]";
		for (const text of [
			`{ "ledger": {}, "queue": { "parallel": 1 }, ${alarm}${rest} }\n`,
			`{\n\t"ledger": {},\n\t${alarm}${rest}\n}\n`,
		]) {
			const plan = await shown(t, text, withParallel(text, 4));
			t.match(plan, /^ {6}\+.*"parallel": 4/m);
			t.notMatch(plan, secret, text);
		}
	}
	const text = `{ "ledger": {}, "alarms": [{ "url": "${url}" }] }\n`;
	const plan = await shown(t, text, withTls(text, "tailscale") ?? "");
	t.match(plan, '"url": "https://ntfy.example/…"');
	t.notMatch(plan, secret);
});

t.test("nor what looks like its host, however it is written", async (t) => {
	const isAt = async (address: string, host: string) => {
		for (const [text, wanted] of [
			[`{ "alarms": [{ "url": ${JSON.stringify(address)} }] }\n`, `"${host}"`],
			[`{ "alarms": [${JSON.stringify(address)}] }\n`, `"${host}"`],
			[`{ } // was { "url": ${JSON.stringify(address)} }\n`, "} // was"],
			[`{ } // was ${address}\n`, "} // was"],
		] as const) {
			const plan = await shown(t, text, withParallel(text, 4));
			t.match(plan, wanted, text);
			t.notMatch(plan, /SECRET|family/, text);
		}
	};
	for (const [address, host] of [
		["https://h.example/send?to=@family&token=SECRET", "https://h.example/…"],
		["https://h.example/s/@SECRETabcdef", "https://h.example/…"],
		["https:/h.example/SECRET", "https://h.example/…"],
		["https:\\h.example\\SECRET", "https://h.example/…"],
		["https://h.example/a SECRET", "https://h.example/…"],
		["https://h.example#@SECRET", "https://h.example/…"],
		["https://u:SECRET@h.example/a@b", "https://h.example/…"],
		["https://u:SEC/RET@h.example:x/SECRET", "…"],
		["https://h.example:x/SECRET", "…"],
	] as const)
		await isAt(address, host);
});

t.test("a plan shows the host of other addresses", async (t) => {
	const text = `{ "upstream": { "url": "http://127.0.0.1:11434" }, "ledger": { "url": "postgres://me@db:5432/usage" }, "state": { "url": "unix:/run/valkey.sock" } }\n`;
	const plan = await shown(t, text, withParallel(text, 4));
	for (const address of [
		"http://127.0.0.1:11434",
		"postgres://db:5432/…",
		"unix:/run/valkey.sock",
	])
		t.match(plan, `"${address}"`);
	const quoted = `{ "ledger": { "url": "postgres://me:SEC\\"RET@db/usage" } }\n`;
	t.notMatch(await shown(t, quoted, withParallel(quoted, 4)), "RET");
});

t.test(
	"of a file that not everybody may read, a plan shows what changes",
	async (t) => {
		const before = "one\ntwo\nthree\n";
		const after = "one\ntwo\nfour\n";
		t.notMatch(await shown(t, before, after), /one|two/);
		t.match(await shown(t, before, after, 0o644), /^ {7}one\n {7}two$/m);
		t.match(await shown(t, before, before), "(its owner and mode alone)");
	},
);
