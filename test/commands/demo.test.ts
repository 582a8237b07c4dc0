import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import t from "tap";
import { eventually, runProgram, temporaryFolder } from "../support/gate.ts";
import { makeNamespace, network } from "../support/namespaces.ts";
import { program } from "../support/program.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

/** A place for the demo's folder that nothing else writes to. */
async function makePlace(t: Tap) {
	const folder = await temporaryFolder(t);
	return {
		folder,
		env: { ...process.env, TMPDIR: folder },
		/** What demos have left, or have now. */
		folders: async () =>
			(await readdir(folder)).filter((name) => name.startsWith("llamagate-")),
	};
}

function startDemo(t: Tap, env: NodeJS.ProcessEnv, ...nodeArgs: string[]) {
	const child = spawn(
		process.execPath,
		[...nodeArgs, program, "demo", "--json", "--port", "0"],
		{ env, stdio: ["ignore", "pipe", "inherit"] },
	);
	t.teardown(() => child.kill("SIGKILL"));
	return child;
}

async function started(child: ChildProcess): Promise<void> {
	if (child.stdout === null) throw new Error("it has no standard output");
	await once(child.stdout, "data");
}

t.test(
	"however the demo is ended, its folder goes, and the exit code is 0",
	async (t) => {
		for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
			const { env, folders } = await makePlace(t);
			const child = startDemo(t, env);
			await started(child);
			t.equal((await folders()).length, 1);
			child.kill(signal);
			t.strictSame(await once(child, "exit"), [0, null], signal);
			t.strictSame(await folders(), [], signal);
		}
	},
);

t.test("a demo that is ended while it starts leaves no folder", async (t) => {
	const { folder, env, folders } = await makePlace(t);
	// The start stands still where the ledger's folder is there and no gate is yet.
	const hold = path.join(folder, "hold.mjs");
	await writeFile(
		hold,
		`import { Server } from "node:net";
const listen = Server.prototype.listen;
Server.prototype.listen = function (where, ...rest) {
	return String(where).endsWith("ledger.sock") ? this : listen.call(this, where, ...rest);
};
`,
	);
	const child = startDemo(t, env, "--import", hold);
	await eventually(async () => (await folders()).length === 1);
	child.kill("SIGINT");
	t.strictSame(await once(child, "exit"), [0, null]);
	t.strictSame(await folders(), []);
});

t.test("a demo that cannot start leaves no folder", async (t) => {
	const { env, folders } = await makePlace(t);
	const taken = createServer().listen(0, "127.0.0.1");
	await once(taken, "listening");
	t.teardown(() => taken.close());
	const { port } = taken.address() as { port: number };
	const demo = (given: string) =>
		runProgram([process.execPath, program, "demo", "--port", given], { env });
	const refused = await demo(String(port));
	t.equal(refused.code, 1);
	t.match(refused.stderr, /the port is taken/);
	for (const given of ["65536", "70000", "x"]) {
		const { code, stderr } = await demo(given);
		t.equal(code, 2, given);
		t.match(stderr, /is not a port: 1 to 65535/);
	}
	t.strictSame(await folders(), []);
});

/** What takes Ollama's port, and is none. */
const impostor = `
require("node:http").createServer((req, res) => res.end(JSON.stringify(
	req.url === "/api/version"
		? { version: "0.35.0\\u001b[2J" }
		: { models: [{ name: "a'; touch /tmp/owned; '" }, { name: "\\u001b[2J" }, { name: "llama3.2:3b" }] },
))).listen(11434, "127.0.0.1", () => console.log("listening"));
`;

t.test(
	"what listens on Ollama's port puts nothing but a name into the demo's commands",
	network(),
	async (t) => {
		const host = await makeNamespace(t);
		const other = host.start(process.execPath, "--eval", impostor);
		await once(other.stdout, "data");
		const demo = host.start(process.execPath, program, "demo", "--port", "0");
		let out = "";
		demo.stdout.on("data", (text: string) => {
			out += text;
		});
		await eventually(() => out.includes("Ctrl-C stops"));
		t.match(out, /in front of the Ollama 0\.35\.0\[2J on this machine/);
		t.match(out, /-d '\{"model":"llama3\.2:3b","prompt":"Hello!"\}'/);
		t.notMatch(out, /touch/);
		t.notOk(out.includes("\u001b"));
		demo.kill("SIGINT");
		await once(demo, "close");
	},
);
