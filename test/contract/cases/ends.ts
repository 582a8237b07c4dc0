import type { Group } from "../contract.ts";
import { bodyOf, inferencePaths } from "./replies.ts";

/** How replies end that do not come to their end. */
export const ends: Readonly<Record<string, Group>> = {
	"a runner that dies": {
		settings: { parallel: 1 },
		cases: {
			"is told in the streams of Ollama's own API alone, and every stream ends cleanly":
				async (t, ollama) => {
					for (const path of inferencePaths) {
						const sent = ollama.send(
							...(["POST", path] as const),
							bodyOf(path, 100_000, { stream: true }),
						);
						await sent.until((text) =>
							/delta|"response"|"message"|"text":"/.test(text),
						);
						await ollama.killRunner();
						const { status, text, isWhole } = await sent.end;
						t.equal(status, 200, path);
						t.ok(isWhole, path);
						const last = text.trimEnd().split("\n").at(-1) ?? "";
						if (path.startsWith("/api/"))
							t.match(
								last,
								/^\{"error":"an error was encountered while running the model: [^"]+"\}$/,
								path,
							);
						else {
							t.notMatch(
								text,
								/"error":\{|\[DONE\]|message_stop|response\.completed/,
								path,
							);
							if (/completions$/.test(path)) t.match(last, /"model":""/, path);
						}
						// The next request loads the model anew.
						const next = await ollama.ask("POST", path, bodyOf(path, 1));
						t.equal(next.status, 200, path);
					}
				},
			"is a 500 where nothing was sent yet": async (t, ollama) => {
				// One of each family: the model is loaded anew for each.
				for (const path of [
					...["/api/chat", "/v1/chat/completions", "/v1/messages"],
				]) {
					await ollama.ask("POST", path, bodyOf(path, 1, { stream: false }));
					const sent = ollama.send(
						...(["POST", path] as const),
						bodyOf(path, 100_000, { stream: false }),
					);
					for (let calls = 0; calls < 20; calls++)
						await ollama.ask("GET", "/api/version");
					await ollama.killRunner();
					const { status, text } = await sent.end;
					t.equal(status, 500, path);
					t.match(text, /an error was encountered while running/, path);
				}
			},
		},
	},
	SIGTERM: {
		settings: { parallel: 1 },
		cases: {
			"cuts every stream at once, without an end": async (t, ollama) => {
				const sent = ollama.send(
					...(["POST", "/api/generate"] as const),
					bodyOf("/api/generate", 100_000),
				);
				await sent.until((text) => text.includes("\n"));
				await ollama.terminate();
				const { status, isWhole, text } = await sent.end;
				t.equal(status, 200);
				t.notOk(isWhole);
				t.notMatch(text, /error/);
			},
		},
	},
};
