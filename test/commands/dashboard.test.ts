import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import path from "node:path";
import t from "tap";
import {
	runCli,
	startGate,
	type TestGate,
	temporaryFolder,
} from "../support/gate.ts";
import { program } from "../support/program.ts";

const run = ({ configFile }: Pick<TestGate, "configFile">, ...args: string[]) =>
	runCli(["dashboard", "--config", configFile, ...args]);

t.test(
	"it listens on loopback alone, and says what to do instead",
	async (t) => {
		const gate = { configFile: "/nonexistent.json" };
		for (const address of [
			...["0.0.0.0:9465", "[::]:9465", "100.64.0.7:9465", "192.168.1.2:80"],
			...["[fd7a:115c:a1e0::1]:9465", "gpu.example:9465", "localhost:9465"],
			...["127.0.0.1", "127.0.0.1:70000", ":9465", "9465", ""],
		])
			t.match(
				await run(gate, "--listen", address),
				{ code: 2, stdout: "", stderr: /loopback address.*tailscale serve/s },
				address,
			);
	},
);

t.test("it lets no tailnet in without being told whom", async (t) => {
	const gate = { configFile: "/nonexistent.json" };
	t.match(await run(gate, "--host", "gpu.example"), {
		code: 2,
		stderr: /--allow/,
	});
	t.match(await run(gate, "--allow", "me@example.com"), {
		code: 2,
		stderr: /--host/,
	});
	t.match(await run(gate, "--host", "https://gpu.example/", "--allow", "any"), {
		code: 2,
		stderr: /is not a name/,
	});
});

t.test("it serves the page until it is told to stop", async (t) => {
	const gate = await startGate(t);
	const child = spawn(
		process.execPath,
		[
			...[program, "dashboard", "--config", gate.configFile],
			...["--listen", "127.0.0.1:0", "--host", "GPU.example"],
			...["--allow", "me@example.com"],
		],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	const exited = once(child, "exit");
	t.teardown(async () => {
		child.kill("SIGKILL");
		await exited;
	});
	let said = "";
	child.stdout.setEncoding("utf8");
	while (!said.includes("GPU.example") && !said.includes("gpu.example"))
		said += String((await once(child.stdout, "data"))[0]);
	const url = /http:\/\/127\.0\.0\.1:\d+\//.exec(said)?.[0] ?? "";
	t.match(said, /by tailscale serve, .* gpu\.example/);
	t.notMatch(said, "https://gpu.example/", "its port is not known here");
	t.match(await (await fetch(url)).text(), /<dt>At work<\/dt>/);
	const events = await fetch(`${url}events`);
	t.equal(events.status, 200);
	child.kill("SIGTERM");
	t.strictSame(await exited, [0, null]);
});

t.test("where it cannot, it says why", async (t) => {
	const gate = await startGate(t);
	const taken = createServer();
	await once(taken.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => taken.close());
	const { port } = taken.address() as AddressInfo;
	t.match(await run(gate, "--listen", `127.0.0.1:${port}`), {
		code: 1,
		stderr: /is taken\. It is held by .*--listen/s,
	});
	const folder = await temporaryFolder(t);
	const configFile = path.join(folder, "config.json");
	await writeFile(configFile, '{ "admin": { "socket": "off" } }', {
		mode: 0o600,
	});
	t.match(await run({ configFile }), { code: 1, stderr: /admin\.socket/ });
	await writeFile(configFile, '{ "adnim": {} }', { mode: 0o600 });
	t.match(await run({ configFile }), { code: 78, stderr: /admin/ });
});
