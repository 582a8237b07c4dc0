import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import t from "tap";
import type { KeyEntry } from "../../../src/keys/keyFile.ts";
import {
	eventually,
	type LogLine,
	temporaryFolder,
	testKeys,
} from "../../support/gate.ts";
import { record } from "../record.ts";
import { models, type Running, start, startStack } from "./stack.ts";

/** What a person has the client do. */
export type Task = "chat" | "stream" | "abort";

/** Where it is done, and with what. */
export interface Attempt {
	readonly task: Task;
	readonly server: string;
	readonly key: string;
	readonly model: string;
	/** The person's own folder: HOME. */
	readonly home: string;
}

/** What is run, with nothing of this process's environment. */
export interface Invocation {
	readonly command: readonly string[];
	readonly env?: Readonly<Record<string, string>>;
	readonly input?: string;
	/** Where it is run; HOME by itself. */
	readonly cwd?: string;
	/** Files that are written first, by their path in HOME; those in bin/ are found as programs. */
	readonly files?: Readonly<Record<string, string>>;
}

/** A client, and how it is used. */
export interface Trial {
	/** Its name in the table of clients and in docs/clients.md. */
	readonly name: string;
	/** Program and version, as the page says it. */
	readonly title: string;
	readonly version: string;
	/** What a person types, as the page says it. */
	readonly typed: string;
	/** What is seen of a reply as soon as it begins; absent for a client that shows it once it is whole. */
	readonly begins?: RegExp;
	/** Whether the program stops by itself when it is to abort; else it is sent what Ctrl-C sends. */
	readonly abortsItself: boolean;
	/** Whether it goes on asking for minutes when Ollama is away; then it is stopped after its second request. */
	readonly keepsAsking?: boolean;
	/** Rules of the key besides, or an `ollamaKey` in place of a bearer key. */
	readonly rules?: Partial<KeyEntry>;
	invoke(attempt: Attempt): Invocation | Promise<Invocation>;
}

/** What was seen of one case. */
export interface Seen {
	/** Absent for what has no end of its own. */
	readonly exit?: number | string;
	/** Absent where it is the reply. */
	readonly shows?: readonly string[];
	/** What the gate logged of each request, with how often. */
	readonly gate: readonly string[];
}

/** What test/real/clients/seen has of a client. */
export interface SeenClient {
	readonly title: string;
	readonly typed: string;
	readonly cases: Readonly<Record<string, Seen>>;
}

/** One that keeps asking is interrupted then. */
const askedTwice = 2;
/** A guard against hanging and nothing else. */
const patienceMs = 300_000;

/** The same six cases for every client; what each shows must be what docs/clients.md says. */
export function tryClient(trial: Trial): void {
	t.test(`${trial.title}, through the gate`, async (t) => {
		const stack = await startStack(t, trial.rules);
		const home = await temporaryFolder(t);
		const cases: Record<string, Seen> = {};
		const readable = (text: string) =>
			linesOf(
				text.replaceAll(home, "~").replaceAll(stack.ollama, "127.0.0.1:11434"),
			);

		const run = async (
			task: Task,
			{ key = testKeys.user, model = models.short as string },
			meanwhile: (running: Running) => Promise<void> = async () => {},
		) => {
			const before = stack.requests().length;
			const { command, env, input, cwd, files } = await trial.invoke({
				task,
				server: stack.server,
				key,
				model,
				home,
			});
			for (const [name, text] of Object.entries(files ?? {})) {
				const file = path.join(home, name);
				await mkdir(path.dirname(file), { recursive: true });
				await writeFile(file, text, { mode: 0o700 });
			}
			const running = start(stack.inClientNetwork(command), {
				cwd: cwd ?? home,
				env: { ...environment(home), ...env },
				input: input ?? "",
			});
			t.teardown(() => running.kill());
			const timer = setTimeout(() => running.kill(), patienceMs);
			await meanwhile(running);
			const exit = await running.ended;
			clearTimeout(timer);
			const shown = running.shown();
			if (shown.includes(key)) throw new Error("the client shows its key");
			await stack.settled();
			const lines = stack.requests().slice(before);
			return { exit, shown, lines };
		};

		/** What it shows whether it is answered or not. */
		const usual = new Set<string>();
		await t.test("a chat is answered", async (t) => {
			const { exit, shown, lines } = await run("chat", {});
			for (const line of readable(shown)) usual.add(line);
			t.equal(exit, 0, shown);
			t.match(shown, /\S/);
			t.ok(lines.some(isAnswered));
			cases.chat = { exit, gate: summarize(lines) };
		});

		// That it grows is shown by the next, whose stream has no end by itself.
		await t.test("a stream is shown whole", async (t) => {
			const { exit, shown, lines } = await run("stream", {});
			t.equal(exit, 0, shown);
			t.ok(lines.some(isAnswered));
			cases.stream = { exit, gate: summarize(lines) };
		});

		await t.test("an abort reaches Ollama", async (t) => {
			const { exit, lines, shown } = await run(
				"abort",
				{ model: models.endless },
				async (running) => {
					if (trial.abortsItself) return;
					await eventually(
						async () =>
							(trial.begins !== undefined
								? trial.begins.test(stripVTControlCharacters(running.shown()))
								: (await stack.streams()) > 0) || running.hasEnded(),
					);
					running.interrupt();
				},
			);
			t.ok(
				lines.some(({ outcome }) => outcome === "client_gone"),
				shown,
			);
			t.ok(await stack.isRunnerFree());
			cases.abort = { exit, gate: summarize(lines) };
		});

		const refused = async (
			name: string,
			wanted: object,
			withWhat: object,
			meanwhile?: (running: Running) => Promise<void>,
		) => {
			const { exit, shown, lines } = await run("chat", withWhat, meanwhile);
			t.ok(lines.length > 0, `${name}: the gate was asked`);
			t.match(lines.at(-1), wanted, name);
			cases[name] = {
				exit,
				shows: readable(shown).filter(
					(line) => !usual.has(line.replaceAll(models.forbidden, models.short)),
				),
				// One that is interrupted may have asked once more by then.
				gate: summarize(
					meanwhile === undefined ? lines : lines.slice(0, askedTwice),
				),
			};
		};
		await refused("wrong key", { status: 401 }, { key: testKeys.wrong });
		await refused(
			"forbidden model",
			{ status: 403 },
			{ model: models.forbidden },
		);
		await stack.stopOllama();
		const interruptAtSecond = async (running: Running) => {
			const misses = () =>
				stack.requests().filter(({ status }) => status === 502).length;
			await eventually(() => misses() >= askedTwice || running.hasEnded());
			running.interrupt();
		};
		await refused(
			"Ollama stopped",
			{ status: 502 },
			{},
			trial.keepsAsking === true ? interruptAtSecond : undefined,
		);

		t.strictSame(stack.leftBehind(), [], "nothing is left running");
		record("clients", trial.title.replace(` ${trial.version}`, ""), {
			version: trial.version,
			ran: Object.keys(cases),
			differs: [],
		});
		compare(t, { title: trial.title, typed: trial.typed, cases }, trial.name);
	});
}

/** What a client's program is run with, and nothing of this process's. */
export function environment(home: string): Record<string, string> {
	return {
		PATH: `${home}/bin:${path.dirname(process.execPath)}:/usr/bin:/bin`,
		HOME: home,
		// Some leave a library there each time that they start.
		TMPDIR: home,
		LANG: "C.UTF-8",
		TERM: "dumb",
		NO_COLOR: "1",
	};
}

/** Whether the person of the stack was answered. */
export function isAnswered({ key, outcome, route }: LogLine): boolean {
	return key === "person" && outcome === "ok" && String(route).includes("POST");
}

/** `2 × POST /api/chat 401`, in the order in which they first came. */
export function summarize(lines: readonly LogLine[]): string[] {
	const counts = new Map<string, number>();
	for (const { route, path: asked, status, outcome, reason } of lines) {
		const line = [
			route ?? asked ?? "another path",
			// Whether the head of the reply had come is a matter of milliseconds.
			...(outcome === "client_gone" ? [] : [status]),
			outcome,
			...(reason === undefined ? [] : [`(${String(reason)})`]),
		].join(" ");
		counts.set(line, (counts.get(line) ?? 0) + 1);
	}
	return [...counts].map(([line, count]) =>
		count === 1 ? line : `${count} × ${line}`,
	);
}

/** What a person reads, without colours and without what differs from run to run. */
function linesOf(shown: string): string[] {
	return stripVTControlCharacters(shown)
		.replace(/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/g, "ID")
		.replace(/\b[0-9a-f]{8}-[0-9a-z]+\b/g, "ID")
		.split(/[\r\n]+/)
		.map((line) => line.trim())
		.filter((line, index, lines) => line !== "" && line !== lines[index - 1]);
}

/** As with tap's own snapshots, TAP_SNAPSHOT=1 writes down what is seen in place of judging it. */
export function compare(
	t: { equal(found: string, wanted: string, message: string): boolean },
	seen: SeenClient,
	name: string,
): void {
	const file = path.join(import.meta.dirname, "seen", `${name}.json`);
	const text = `${JSON.stringify(seen, undefined, "\t")}\n`;
	if (process.env.TAP_SNAPSHOT === "1") {
		mkdirSync(path.dirname(file), { recursive: true });
		writeFileSync(file, text);
	}
	t.equal(text, readFileSync(file, "utf8"), `${name} shows what it showed`);
}
