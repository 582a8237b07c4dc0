import { readFileSync } from "node:fs";
import { writeOrCheck } from "../../src/config/madeFiles.ts";
import { targets } from "../fuzz/targets.ts";
import { suites } from "./checkouts.ts";
import { oddJoints, scenarios } from "./desyncCases.ts";
import { exceptions } from "./exceptions.ts";
import type { Case, Label, Outcome, Score } from "./judge.ts";

const labels: Readonly<Record<Label, string>> = {
	valid: "valid",
	doubtful: "doubtful: acceptable, ambiguous, or for lenient readers only",
	invalid: "invalid, severe",
	unfinished: "unfinished",
};
const outcomes: readonly Outcome[] = [
	"passed on",
	"refused",
	"waiting",
	"fault",
];

const scores = JSON.parse(
	readFileSync(new URL("scores.json", import.meta.url), "utf8"),
) as Readonly<Record<string, Score>>;

function renderScores(): string {
	return Object.entries(suites)
		.map(([name, { repository, what }]) => {
			const score = scores[name];
			if (score === undefined) throw new Error(`${name} has no score`);
			const rows = Object.entries(score.counts).map(
				([label, counts]) =>
					`| ${labels[label as Label]} | ${outcomes.map((outcome) => counts[outcome] ?? 0).join(" | ")} |`,
			);
			const reasons = Object.entries(exceptions[name] ?? {}).map(
				([id, reason]) => `- \`${id}\` ${reason}.`,
			);
			return `### ${name}: ${score.held} of ${score.total} held

${repository} at \`${score.commit.slice(0, 12)}\`: ${what}.

| the suite calls it | ${outcomes.join(" | ")} |
|---|---|---|---|---|
${rows.join("\n")}
${reasons.length === 0 ? "" : `\nThe exceptions:\n\n${reasons.join("\n")}\n`}`;
		})
		.join("\n");
}

function countBy(cases: readonly Case[], label: Label): number {
	return cases.filter((one) => one.label === label).length;
}

writeOrCheck({
	"docs/security-testing.md": `# Security testing

<!-- Made from test/ by \`npm run docs\`; change it there, not here. -->

Where a request ends must be the same to the gate, to whatever stands in front
of it and to Ollama, or one request hides in another. What an attacker would
send is in test/attack. Here are the suites that measure the gate against other
people's reading, and the fuzzers.

All of them send bytes over a real connection to the real daemon. The upstream
keeps every byte that it gets, and these are read again by a reader that was
written after Go's net/http (test/support/goHttp.ts), since Ollama is one. Held
against what that reader makes of the client's own bytes, it is a fault

- if something reaches Ollama that the client did not send, or with another body,
- if what reaches Ollama is not written in one plain way, with one framing,
- if a request gets two replies, or something is said or run behind a reply that closes the connection.

| command | what it does | in CI |
|---|---|---|
| \`npm test -- test/conformance test/fuzz\` | our own cases, some seconds of mutated requests, the fuzzers' corpus | yes |
| \`npm run fuzz\` | fuzzes for \`FUZZ_SECONDS\` (60) and writes the corpus anew; \`FUZZ_SEED\` repeats a run, which begins by saying its own | no |
| \`npm run conformance -- FOLDER\` | other projects' suites, from checkouts in that folder; fails on what is not explained below, and writes the scores down | no |

## Suites of others

Their files are not part of this repository (h1spec has no licence file), so
whoever wants the scores anew checks them out: \`git clone\` each into FOLDER
under the name in its heading. It also takes \`python3\` with \`yaml\`.

Each case is sent twice: as it is, without a key, and again with a key, a Host
where the suite left it out, and a route that exists, so that nothing but its
framing keeps it from Ollama. The table counts the second. Held means: invalid
is refused, and the connection closed unless the request's end is beyond doubt;
doubtful is refused, or passed on in one plain form; valid is answered, and not
by 400; unfinished waits. No case may be a fault.

${renderScores()}
## Our own cases

| what | cases | of these valid, doubtful, invalid, unfinished |
|---|---|---|
${(
	[
		[
			"the scenarios of nginx's, HAProxy's and llhttp's tests and of the write-ups of request smuggling, made anew",
			scenarios,
		],
		[
			"one odd byte at every joint of a Content-Length or Transfer-Encoding",
			oddJoints,
		],
	] as const
)
	.map(
		([what, cases]) =>
			`| ${what} | ${cases.length} | ${(["valid", "doubtful", "invalid", "unfinished"] as const).map((label) => countBy(cases, label)).join(", ")} |`,
	)
	.join("\n")}

They are in test/conformance/desyncCases.ts, and all of them hold, without
exceptions. A good request also arrives whole when it comes in any two pieces,
or a byte at a time.

## Fuzzing

**Requests.** The cases above are mutated (bytes, lines, line ends, numbers,
chunks, requests behind each other), sent to the gate and read by the reference.
A failure says its seed and its bytes; the bytes become a case of their own.

**What reads strangers' bytes.** Pure code is run with mutated input, and what
reaches new blocks, by V8's own count, joins the corpus in test/fuzz/corpus.
Jazzer.js would be the tool for that, but the binary that it ships needs a newer
glibc than Debian 12 has, and its package has no source to build. Every input is
also grown to the most that may come, so that what is slower than linear does
not come to its end.

| target | code |
|---|---|
${targets.map(({ name, files }) => `| ${name} | ${files.map((file) => `\`${file}\``).join(", ")} |`).join("\n")}

It must not throw, the pieces in which something comes must make no difference,
and it must agree with a second reading: the route table read line by line, the
key as it stands there, encoding/json's and mime/multipart's rules (with a line's
end of its own in front of each boundary, as others want it), JSON.parse.
`,
});
