import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeDocuments } from "./document.ts";
import { person } from "./fair/person.ts";
import {
	direct,
	gateBatch,
	gateFair,
	gateOff,
	type Stage,
	viaLitellm,
} from "./fair/stage.ts";
import { twoModels } from "./fair/twoModels.ts";
import { renderSection, type Section } from "./report.ts";

const ways = [direct, viaLitellm, gateOff, gateFair, gateBatch];

/** Runs a part that is a program of its own and prints a section. */
async function runPart(
	stage: Stage,
	title: string,
	file: string,
	nodeArgs: readonly string[],
	args: readonly string[],
): Promise<Section[]> {
	stage.progress(title);
	const child = spawn(
		process.execPath,
		[...nodeArgs, fileURLToPath(new URL(file, import.meta.url)), ...args],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	const exited = once(child, "close");
	stage.teardown(async () => {
		child.kill();
		await exited;
	});
	let text = "";
	child.stdout.setEncoding("utf8").on("data", (piece: string) => {
		text += piece;
	});
	const [code] = await exited;
	if (code !== 0) throw new Error(`${title}: it ended with ${code}`);
	return [JSON.parse(text) as Section];
}

const parts: Record<string, (stage: Stage) => Promise<Section[]>> = {
	"person-1": (stage) => person(stage, 1),
	"person-4": (stage) => person(stage, 4),
	"person-4-every": (stage) => person(stage, 4, { everyMs: 4_000 }),
	"person-4-prompt": (stage) => person(stage, 4, { samePrompt: true }),
	"two-models": twoModels,
	uncontended: (stage) =>
		runPart(
			...([stage, "the queue where nobody waits"] as const),
			...(["fair/uncontended.ts", [], [`${stage.seconds}`]] as const),
		),
	"many-waiting": (stage) =>
		runPart(
			...([stage, "ten thousand that wait"] as const),
			...(["fair/manyWaiting.ts", ["--expose-gc"], []] as const),
		),
};

const help = `
Usage: node bench/fair.ts [--only PART] [--way NAME] [--seconds N] [--docs]

Who waits when several share one Ollama: the real one with a small model on one
core, directly, through LiteLLM's proxy, and through the gate with its queue and
without. All of it takes some half an hour. The real parts must be there: npm run
test:real gets them; LiteLLM is installed into .cache/real on the way.

  --only PART  one of ${Object.keys(parts).join(", ")}; may stand twice
  --way NAME   one of "${ways.join('", "')}"; may stand twice
  --seconds N  how long a person is watched, two models three times that (20)
  --docs       puts the tables into docs/performance.md
`;

const { values } = parseArgs({
	options: {
		only: { type: "string", multiple: true },
		way: { type: "string", multiple: true },
		seconds: { type: "string", default: "20" },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
const names = values.only ?? Object.keys(parts);
const unknown =
	names.find((name) => !(name in parts)) ??
	values.way?.find((name) => !ways.includes(name));
const seconds = Number(values.seconds);
if (values.help || unknown !== undefined || !(seconds >= 5)) {
	if (unknown !== undefined)
		process.stderr.write(`there is no part and no way "${unknown}"\n`);
	else if (!values.help) process.stderr.write("--seconds takes 5 or more\n");
	(values.help ? process.stdout : process.stderr).write(help);
	process.exit(values.help ? 0 : 2);
}
process.env.LLAMAGATE_REAL ??= fileURLToPath(
	new URL("../.cache/real", import.meta.url),
);

/** What has to be ended, the last first; each is done once. */
const closing: (() => unknown)[] = [];
async function closeAll(): Promise<void> {
	for (let close = closing.shift(); close; close = closing.shift())
		await close();
}
for (const [signal, code] of [
	["SIGINT", 130],
	["SIGTERM", 143],
] as const)
	process.once(signal, () => void closeAll().then(() => process.exit(code)));

const startedAt = performance.now();
const stage: Stage = {
	seconds,
	only: values.way,
	teardown: (action) => closing.unshift(action),
	progress(text) {
		const took = (performance.now() - startedAt) / 1000;
		process.stderr.write(`${took.toFixed(0).padStart(4)} s  ${text}\n`);
	},
};

const sections: Section[] = [];
try {
	for (const name of names)
		for (const section of (await parts[name]?.(stage)) ?? []) {
			process.stdout.write(`${renderSection(section)}\n`);
			sections.push(section);
		}
	if (values.docs) {
		const docs = new URL("../docs/", import.meta.url);
		await writeDocuments(fileURLToPath(docs), undefined, sections);
	}
} finally {
	await closeAll();
}
