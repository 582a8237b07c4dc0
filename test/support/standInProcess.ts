import { type StandInOptions, startStandIn } from "../../src/ollama/standIn.ts";

/**
 * The stand-in for Ollama as a process, for a network of its own. Its one
 * argument holds its options as JSON; it prints its URL, then each call, and each whose client leaves early.
 */
const standIn = await startStandIn(
	JSON.parse(process.argv[2] ?? "{}") as StandInOptions,
);
const say = (line: Record<string, string>) =>
	process.stdout.write(`${JSON.stringify(line)}\n`);
standIn.events.on("call", ({ method, target }) =>
	say({ call: `${method} ${target}` }),
);
standIn.events.on("abort", ({ method, target }) =>
	say({ abort: `${method} ${target}` }),
);
say({ url: standIn.url });
