import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import t from "tap";
import {
	bearer,
	eventually,
	runCli,
	spawnGate,
	startGate,
	testKeys,
} from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test(
	"without a command, and with --help, the program says what it can do",
	async (t) => {
		const bare = await runCli([]);
		t.equal(bare.code, 2);
		const help = await runCli(["--help"]);
		t.equal(help.code, 0);
		for (const name of ["serve", "demo", "check", "keys"]) {
			t.match(help.stdout, new RegExp(`^ {2}${name} `, "m"));
			const { code, stdout } = await runCli([name, "--help"]);
			t.equal(code, 0);
			t.match(stdout, /Usage: llamagate/);
			t.match(stdout, /Example: llamagate/);
			t.match(stdout, /Exit codes: /);
		}
		const { version } = JSON.parse(await readFile("package.json", "utf8")) as {
			version: string;
		};
		t.equal((await runCli(["--version"])).stdout, `${version}\n`);
	},
);

t.test(
	"an unknown command or option is exit 2 and names the nearest",
	async (t) => {
		const command = await runCli(["serv"]);
		t.equal(command.code, 2);
		t.match(command.stderr, /did you mean "serve"/);
		const option = await runCli(["check", "--confg", "x"]);
		t.equal(option.code, 2);
		t.match(option.stderr, /did you mean --config/);
		t.equal((await runCli(["check", "extra"])).code, 2);
		t.equal((await runCli(["constructor"])).code, 2);
	},
);

t.test("a port that is taken is exit 1, with advice", async (t) => {
	const taken = createServer().listen(0, "127.0.0.1");
	await once(taken, "listening");
	t.teardown(() => taken.close());
	const { port } = taken.address() as { port: number };
	const gate = await startGate(t);
	await gate.writeConfig({ listen: { port } });
	const { code, stderr } = await runCli(["serve", "--config", gate.configFile]);
	t.equal(code, 1);
	t.match(
		stderr,
		/cannot listen on 127\.0\.0\.1:\d+: the port is taken; if Ollama listens on all addresses/,
	);
	t.notMatch(stderr, /\.ts:\d+/);
});

t.test("the demo's commands do what it says they do", async (t) => {
	const child = spawn(
		process.execPath,
		["src/main.ts", "demo", "--json", "--port", "0"],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	const exited = once(child, "exit");
	t.teardown(() => child.kill("SIGKILL"));
	child.stdout.setEncoding("utf8");
	let out = "";
	while (!out.includes("\n")) out += (await once(child.stdout, "data"))[0];
	const started = JSON.parse(out.split("\n")[0] ?? "") as {
		url: string;
		key: string;
		model: string;
		config: string;
	};
	t.match(started, {
		url: /^http:\/\/127\.0\.0\.1:\d+$/,
		key: /^lg_/,
		standIn: Boolean,
		upstream: String,
	});
	t.equal((await fetch(`${started.url}/api/tags`)).status, 401);
	t.equal(
		(await fetch(`${started.url}/api/tags`, { headers: bearer(started.key) }))
			.status,
		200,
	);
	const streamed = await fetch(`${started.url}/api/generate`, {
		method: "POST",
		headers: bearer(started.key),
		body: JSON.stringify({ model: started.model, prompt: "Hello!" }),
	});
	t.match(await streamed.text(), /"done":true/);
	await eventually(async () => {
		const used = await runCli(["usage", "--json", "--config", started.config]);
		const [row] = (JSON.parse(used.stdout) as { rows: object[] }).rows;
		return row !== undefined && "key" in row && row.key === "demo";
	});
	const added = await runCli([
		"keys",
		"add",
		"phone",
		"--config",
		started.config,
	]);
	t.match(added.stderr, /The running daemon has taken it over/);
	for (const key of [added.stdout.trim(), started.key])
		t.equal(
			(await fetch(`${started.url}/api/tags`, { headers: bearer(key) })).status,
			200,
			"a key that was added is in force, and so is the first",
		);
	child.kill("SIGINT");
	t.strictSame(await exited, [0, null]);
	await t.rejects(access(started.config), "nothing of it is left");
});

t.test(
	"the demo for people prints its commands and says which upstream it uses",
	async (t) => {
		const child = spawn(
			process.execPath,
			["src/main.ts", "demo", "--port", "0"],
			{ stdio: ["ignore", "pipe", "inherit"] },
		);
		const exited = once(child, "exit");
		// It takes its folder away.
		t.teardown(async () => {
			child.kill();
			await exited;
		});
		child.stdout.setEncoding("utf8");
		let out = "";
		while (!out.includes("Ctrl-C stops"))
			out += (await once(child.stdout, "data"))[0];
		t.equal(out.match(/^ {2}curl /gm)?.length, 3);
		for (const line of out.split("\n")) t.ok(line.length <= 80, line);
		t.match(out, /in front of (a built-in stand-in|the Ollama)/);
		t.match(
			out,
			/^status, top, .* take the same --config\.\ncheck, doctor and logs/m,
		);
		t.notMatch(
			out,
			new RegExp(String.fromCharCode(27)),
			"no colour without a terminal",
		);
	},
);

t.test(
	"counters and status come out by the side doors, and nothing secret with them",
	async (t) => {
		const { askDaemon } = await import("../../src/admin/client.ts");
		const { stat } = await import("node:fs/promises");
		const free = createServer().listen(0, "127.0.0.1");
		await once(free, "listening");
		const { port } = free.address() as { port: number };
		free.close();
		await once(free, "close");
		const gate = await spawnGate(t, {
			config: { admin: { metrics: `127.0.0.1:${port}` } },
		});
		for (const key of [testKeys.user, testKeys.wrong])
			await (
				await fetch(`${gate.url}/api/version`, { headers: bearer(key) })
			).text();
		const socket = `${gate.folder}/admin.sock`;
		t.equal((await stat(socket)).mode & 0o777, 0o600);
		const status = await askDaemon(socket, "GET /status");
		t.match(JSON.parse(status?.body ?? ""), {
			pid: gate.child.pid,
			keys: ["user", "owner", "reader", "worker"],
			streams: 0,
		});
		const metrics = await (
			await fetch(`http://127.0.0.1:${port}/metrics`)
		).text();
		t.match(
			metrics,
			/^llamagate_requests_total\{key="user",route="GET \/api\/version",status="200",outcome="ok"\} 1$/m,
		);
		t.match(metrics, /^llamagate_auth_failures_total 1$/m);
		for (const text of [metrics, status?.body ?? ""])
			for (const key of Object.values(testKeys))
				t.notOk(text.includes(key.slice(3)));
		t.equal((await askDaemon(socket, "GET /nothing"))?.status, 404);
	},
);

t.test(
	"a side door that cannot be opened does not keep the gate shut",
	async (t) => {
		const gate = await spawnGate(t, {
			config: { admin: { socket: "/no/such/folder/admin.sock" } },
		});
		t.ok(
			gate.log.some(({ msg }) =>
				/admin socket could not be opened; .*llamagate status, top, reload and unlock/.test(
					String(msg),
				),
			),
		);
		t.equal(
			(
				await fetch(`${gate.url}/api/version`, {
					headers: bearer(testKeys.user),
				})
			).status,
			200,
		);
	},
);

t.test(
	"the socket of a daemon that was killed does not stop the next",
	async (t) => {
		const first = await spawnGate(t);
		first.child.kill("SIGKILL");
		await first.exited;
		const child = spawn(
			process.execPath,
			[program, "serve", "--config", first.configFile],
			{ stdio: ["ignore", "pipe", "inherit"] },
		);
		t.teardown(() => child.kill("SIGKILL"));
		child.stdout.setEncoding("utf8");
		let out = "";
		while (!out.includes('"started"'))
			out += (await once(child.stdout, "data"))[0];
		t.notMatch(out, /could not be opened/);
	},
);
