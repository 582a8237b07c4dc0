import { execFile } from "node:child_process";
import { promisify } from "node:util";
import t from "tap";

const execute = promisify(execFile);
/** What a terminal, SSH, sudo, CI and a supervisor put into a process, or a person into their shell. */
const surroundings = {
	...{ FORCE_COLOR: "3", NO_COLOR: "1", COLORTERM: "truecolor" },
	...{ TERM: "xterm-256color", COLUMNS: "40", LINES: "10" },
	...{
		LANG: "de_DE.UTF-8",
		LC_ALL: "tr_TR.UTF-8",
		LANGUAGE: "de",
		TZ: "Asia/Tokyo",
	},
	...{ SUDO_USER: "somebody", SSH_CONNECTION: "192.0.2.1 5 192.0.2.2 22" },
	...{ LISTEN_FDS: "1", NOTIFY_SOCKET: "/run/x", JOURNAL_STREAM: "8:1" },
	...{ OLLAMA_HOST: "192.0.2.1", OPENAI_API_KEY: "x", GIT_DIR: "/nowhere" },
	NODE_USE_ENV_PROXY: "1",
};

t.test(
	"a test finds the same around it in a terminal, in CI and anywhere else",
	async (t) => {
		const around = async (environment: Record<string, string>) => {
			const { PATH = "" } = process.env;
			const { stdout } = await execute(
				"sh",
				[
					...["-c", 'umask 077; exec "$@"', "sh", process.execPath],
					...["--import=./test/support/environment.ts", "--eval"],
					"console.log(JSON.stringify([process.env, process.umask(), new Date(0).getHours()]))",
				],
				{ env: { PATH, CI: "true", ...environment } },
			);
			return JSON.parse(stdout) as unknown;
		};
		const bare = await around({});
		t.strictSame(await around(surroundings), bare);
		t.match(bare, [
			{ CI: "true", TERM: "dumb", FORCE_COLOR: undefined },
			0o022,
			0,
		]);
	},
);

t.test("so does this one", async (t) => {
	for (const name of [...Object.keys(surroundings), "NODE_OPTIONS"])
		if (!["LC_ALL", "TERM", "TZ"].includes(name))
			t.equal(process.env[name], undefined, name);
	t.match(process.env, { LC_ALL: "C.UTF-8", TERM: "dumb", TZ: "UTC" });
	t.equal(process.umask(), 0o022);
});

t.test(
	"a program that a test starts gets nothing of the test runner",
	async (t) => {
		const { stdout } = await execute(
			process.execPath,
			[
				"--print",
				"JSON.stringify([process.env, process.listenerCount('SIGINT')])",
			],
			{ env: {} },
		);
		t.strictSame(JSON.parse(stdout), [{}, 0]);
	},
);

t.test("an error that nobody catches fails its file", async (t) => {
	for (const error of [
		"setTimeout(() => { throw new Error('lost'); }, 1);",
		"Promise.reject(new Error('lost'));",
	])
		await t.rejects(
			execute(process.execPath, [
				...["--import=./test/support/environment.ts", "--input-type=module"],
				"--eval",
				`import t from "tap";
				t.test("a", async () => {
					${error}
					await new Promise((resolve) => setTimeout(resolve, 1000));
				});`,
			]),
			{ code: 1, stdout: /not ok/ },
			error,
		);
});
