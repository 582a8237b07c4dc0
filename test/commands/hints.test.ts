import { execFile } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import t from "tap";
import { runCli, startGate, temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test("a slip in a command's name is seen through", async (t) => {
	for (const [typed, meant] of Object.entries({
		...{ sevre: "serve", chekc: "check", kyes: "keys", dmeo: "demo" },
		...{ stauts: "status", docter: "doctor", HELP: "help", polcy: "policy" },
		...{ start: "serve", install: "setup", undo: "setup --undo" },
		...{ revoke: "keys revoke", add: "keys add", ps: "top", queue: "top" },
	})) {
		const { code, stderr } = await runCli([typed]);
		t.equal(code, 2, typed);
		t.match(stderr, `did you mean "${meant}"?`);
	}
	const { stderr } = await runCli(["xyzzy"]);
	t.equal(
		stderr,
		'llamagate: unknown command "xyzzy"\nSee: llamagate --help\n',
	);
});

t.test("a hint is a command that works as it stands", async (t) => {
	const folder = path.join(await temporaryFolder(t), "with 'space");
	await mkdir(folder);
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket: "off" } }), {
		mode: 0o600,
	});
	const hint = `llamagate keys add NAME --config '${folder.replace("'", "'\\''")}/config.json'`;
	for (const command of [["check"], ["serve"], ["keys", "list"]]) {
		const { code, stderr } = await runCli([...command, "--config", config]);
		t.equal(code, 78, command.join(" "));
		t.match(stderr, hint);
	}
	await writeFile(path.join(folder, "keys.json"), '{"keys":[]}', {
		mode: 0o600,
	});
	t.match((await runCli(["check", "--config", config])).stdout, hint);
	t.match((await runCli(["keys", "list", "--config", config])).stderr, hint);
});

t.test("a port that is taken is told with who has it", async (t) => {
	const taken = createServer().listen(0, "127.0.0.1");
	await once(taken, "listening");
	t.teardown(() => taken.close());
	const { port } = taken.address() as { port: number };
	const gate = await startGate(t);
	await gate.writeConfig({ listen: { port } });
	const holder = new RegExp(`\\(pid ${process.pid}\\)`);
	const serve = await runCli(["serve", "--config", gate.configFile]);
	t.equal(serve.code, 1);
	t.match(serve.stderr, holder);
	t.match((await runCli(["demo", "--port", String(port)])).stderr, holder);
	t.match(
		(await runCli(["check", "--config", gate.configFile])).stdout,
		holder,
	);
});

t.test(
	"who may not read or ask is told to use sudo",
	{ skip: process.getuid?.() === 0 ? false : "needs root, to become another" },
	async (t) => {
		const gate = await startGate(t);
		const asNobody = (...args: string[]) =>
			new Promise<string>((resolve) => {
				execFile(
					"setpriv",
					[
						...["--reuid=65534", "--regid=65534", "--clear-groups"],
						...[
							process.execPath,
							program,
							...args,
							"--config",
							gate.configFile,
						],
					],
					(_error, stdout, stderr) => resolve(stdout + stderr),
				);
			});
		await chmod(gate.folder, 0o711);
		t.match(
			await asNobody("keys", "list"),
			/the user nobody may not read it; use sudo/,
		);
		await chmod(gate.configFile, 0o644);
		t.match(
			await asNobody("keys", "list"),
			/the user nobody may not read it; use sudo/,
		);
		t.match(
			await asNobody("reload"),
			/only root may ask the gate on .*; run: sudo llamagate reload --config /,
		);
		t.match(
			await asNobody("top"),
			/only root may ask the gate on .*; run: sudo llamagate top --config /,
		);
	},
);
