import { createHash } from "node:crypto";
import type { Group, Ollama } from "../contract.ts";
import { load, loadedModels, unload } from "./loading.ts";

/** A registry where nothing listens. */
const nowhere = "127.0.0.1:9/library/a:b";

async function names(ollama: Ollama): Promise<string[]> {
	const { models } = JSON.parse((await ollama.ask("GET", "/api/tags")).text);
	return models.map(({ name }: { name: string }) => name).sort();
}

/** The calls that change which models there are. */
export const changes: Group = {
	cases: {
		"a copy is another name of the same file, and shares its runner": async (
			t,
			ollama,
		) => {
			t.match(
				await ollama.ask("POST", "/api/copy", {
					source: "smol",
					destination: "copy",
				}),
				{ status: 200, text: "" },
			);
			t.strictSame(await names(ollama), [
				...["copy:latest", "other:latest", "smol:latest"],
			]);
			await unload(ollama);
			await load(ollama);
			await load(ollama, {}, "copy");
			t.equal((await loadedModels(ollama)).length, 1);
			await unload(ollama);
			t.match(await ollama.ask("DELETE", "/api/delete", { model: "copy" }), {
				status: 200,
				text: "",
			});
			t.strictSame(await names(ollama), ["other:latest", "smol:latest"]);
		},
		"a model is made from another, line by line": async (t, ollama) => {
			const reply = await ollama.ask("POST", "/api/create", {
				model: "made",
				from: "smol",
			});
			t.equal(reply.status, 200);
			t.equal(reply.headers["content-type"], "application/x-ndjson");
			const lines = reply.text.trimEnd().split("\n");
			t.strictSame(
				lines.slice(-2).map((line) => JSON.parse(line)),
				[{ status: "writing manifest" }, { status: "success" }],
			);
			t.match(await ollama.ask("POST", "/api/show", { model: "made" }), {
				status: 200,
				text: /"capabilities":\["completion"\]/,
			});
			await ollama.ask("DELETE", "/api/delete", { name: "made" });
			t.strictSame(await names(ollama), ["other:latest", "smol:latest"]);
		},
		"nothing to make a model from is 400": async (t, ollama) => {
			t.match(await ollama.ask("POST", "/api/create", { model: "x" }), {
				status: 400,
				text: `{"error":"neither 'from' or 'files' was specified"}`,
			});
		},
		"a registry that does not answer is told in a stream of 200, or as 500":
			async (t, ollama) => {
				const call = (stream: boolean) =>
					ollama.ask("POST", "/api/pull", {
						...{ model: nowhere, insecure: true, stream },
					});
				const streamed = await call(true);
				t.equal(streamed.status, 200);
				t.match(
					streamed.text,
					/^\{"status":"pulling manifest"\}\n\{"error":"pull model manifest: Get .*connection refused"\}\n$/,
				);
				t.ok(streamed.isWhole);
				t.match(await call(false), {
					status: 500,
					text: /^\{"error":"pull model manifest: Get .*connection refused"\}$/,
				});
			},
		"a push of what is not there fails in its stream": async (t, ollama) => {
			t.match(await ollama.ask("POST", "/api/push", { model: "nope" }), {
				status: 200,
				text: /^\{"status":"retrieving manifest"\}\n\{"status":"couldn't retrieve manifest"\}\n\{"error":"open .*no such file or directory"\}\n$/,
			});
		},
		"a blob is kept by its own digest, even where it was announced by another":
			async (t, ollama) => {
				const digestOf = (text: string) =>
					`sha256:${createHash("sha256").update(text).digest("hex")}`;
				const at = (digest: string) => `/api/blobs/${digest}`;
				const [first, second] = ["first blob", "second blob"];
				const status = async (digest: string) =>
					(await ollama.ask("HEAD", at(digest))).status;
				t.equal(await status(digestOf(first)), 404);
				t.equal(
					(await ollama.ask("POST", at(digestOf(first)), first)).status,
					201,
				);
				t.equal(await status(digestOf(first)), 200);
				t.equal(
					(await ollama.ask("POST", at(digestOf(first)), second)).status,
					200,
					"what is there is not read again",
				);
				const wrong = digestOf("something else");
				t.match(await ollama.ask("POST", at(wrong), second), {
					status: 400,
					text: JSON.stringify({
						error: `digest mismatch, expected "${wrong}", got "${digestOf(second)}"`,
					}),
				});
				t.equal(await status(wrong), 404);
				t.equal(await status(digestOf(second)), 200);
				t.match(await ollama.ask("POST", at("x"), "a"), {
					status: 400,
					text: '{"error":"invalid digest format"}',
				});
			},
	},
};
