import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { makeAuthority } from "../../support/certificates.ts";
import {
	type RunResult,
	runProgram,
	spawnGate,
	testKeys,
} from "../../support/gate.ts";
import { startOllama } from "../ollama.ts";
import { realParts } from "../parts.ts";
import { clientFolder } from "./install.ts";

/** A program of this folder, as a person runs it who has an authority of their own. */
async function runClient(
	name: "openai-js" | "ollama-js",
	task: string,
	server: string,
	caFile: string | undefined,
): Promise<RunResult> {
	const program = path.join(import.meta.dirname, "programs", `${name}.mjs`);
	return runProgram([process.execPath, "--input-type=module", "-"], {
		cwd: clientFolder(realParts().folder, name),
		input: await readFile(program, "utf8"),
		env: {
			PATH: process.env.PATH ?? "",
			...{ SERVER: server, KEY: testKeys.user, MODEL: "short", TASK: task },
			...(caFile !== undefined && { NODE_EXTRA_CA_CERTS: caFile }),
		},
	});
}

t.test("curl, openai and ollama reach the gate by HTTPS", async (t) => {
	const ollama = await startOllama(t);
	// Or it goes on until it is done with its own context.
	const made = await fetch(`${ollama.url}/api/create`, {
		method: "POST",
		body: JSON.stringify({
			...{ model: "short", from: "smol", stream: false },
			parameters: { num_predict: 8, num_ctx: 2048 },
		}),
	});
	t.equal(made.status, 200, await made.text());
	const { caFile, issue } = await makeAuthority(t);
	const pair = await issue();
	const gate = await spawnGate(t, {
		upstreamUrl: ollama.url,
		config: {
			listen: { tls: { certFile: "gate.crt", keyFile: "gate.key" } },
		},
		files: { "gate.crt": pair.cert, "gate.key": pair.key },
	});
	const server = gate.url.replace("http:", "https:");

	await t.test("curl streams, over HTTP/1.1", async (t) => {
		const curl = ["curl", "-sSN", "-w", "\n%{http_version} %{http_code}\n"];
		const { stdout, stderr } = await runProgram([
			...[...curl, "--cacert", caFile],
			...["-H", `Authorization: Bearer ${testKeys.user}`],
			...[
				"-d",
				'{"model":"smol","prompt":"Hello!","options":{"num_predict":8}}',
			],
			`${server}/api/generate`,
		]);
		t.match(stdout, /"done":true[^\n]*\n\n1\.1 200\n$/, stderr);
	});

	await t.test(
		"curl does not take an authority that it does not know",
		async (t) => {
			const { code, stderr } = await runProgram(["curl", "-sS", `${server}/`]);
			t.equal(code, 60, stderr);
		},
	);

	for (const name of ["openai-js", "ollama-js"] as const)
		await t.test(`${name} with NODE_EXTRA_CA_CERTS`, async (t) => {
			const chat = await runClient(name, "chat", server, caFile);
			t.equal(chat.code, 0, chat.stderr);
			t.match(chat.stdout, /\S/);
			const before = gate.log.length;
			const left = await runClient(name, "abort", server, caFile);
			t.match(left.stderr, /^$|^AbortError: /);
			await gate.logged(
				(line) =>
					gate.log.indexOf(line) >= before &&
					["client_gone", "ok"].includes(String(line.outcome)),
			);
			const strange = await runClient(name, "chat", server, undefined);
			t.not(strange.code, 0);
			t.match(strange.stderr, /fetch failed|certificate|Connection error/i);
		});
});
