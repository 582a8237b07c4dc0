import { writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { maxUses } from "../../src/ollama/cliSignature.ts";
import { runCli, startGate, testKeys } from "../support/gate.ts";
import { ollamaKeyPair, signLikeOllama } from "../support/ollamaKey.ts";

const seconds = () => Math.floor(Date.now() / 1000);

async function start(t: Parameters<typeof startGate>[0]) {
	const gate = await startGate(t, {
		keys: [{ name: "cli", ollamaKey: ollamaKeyPair("cli").publicKey }],
		config: { limits: { authFailures: { max: 1000 } } },
	});
	/** A request as the command makes it; what is sent may differ from what is signed. */
	const send = async (
		method: string,
		path: string,
		at: number,
		given: {
			name?: string;
			target?: string;
			header?: string;
			body?: string;
			extra?: Record<string, string>;
		} = {},
	) => {
		const { header } = signLikeOllama(method, path, at, given.name ?? "cli");
		const response = await fetch(
			`${gate.url}${given.target ?? `${path}?ts=${at}`}`,
			{
				method,
				headers: { authorization: given.header ?? header, ...given.extra },
				...(given.body === undefined ? {} : { body: given.body }),
			},
		);
		return { status: response.status, text: await response.text() };
	};
	return { gate, send };
}

t.test(
	"a request that the ollama command signed is let in as its key",
	async (t) => {
		const { gate, send } = await start(t);
		t.equal((await send("HEAD", "/", seconds())).status, 200);
		t.equal((await send("GET", "/api/tags", seconds())).status, 200);
		const chat = await send("POST", "/api/chat", seconds(), {
			body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
		});
		t.match(chat.text, /"done":true/);
		t.match(await gate.logged(({ route }) => route === "POST /api/chat"), {
			key: "cli",
			outcome: "ok",
		});
		for (const { target, headers } of gate.standIn.calls) {
			t.notOk(target.includes("?"), "the time stays here");
			t.notOk(headers.authorization, "and so does the signature");
		}
		t.equal(
			(await send("POST", "/api/pull", seconds(), { body: "{}" })).status,
			403,
			"its scopes hold",
		);
	},
);

t.test("a signature that does not fit, or of a stranger, is 401", async (t) => {
	const { gate, send } = await start(t);
	const now = seconds();
	const { header } = signLikeOllama("GET", "/api/tags", now);
	const [key, signature] = header.split(":");
	const attempts: [string, Promise<{ status: number }>][] = [
		["a stranger's", send("GET", "/api/tags", now, { name: "stranger" })],
		[
			"another path",
			send("GET", "/api/tags", now, { target: `/api/version?ts=${now}` }),
		],
		[
			"another method",
			send("POST", "/api/chat", now, {
				header: signLikeOllama("GET", "/api/chat", now).header,
			}),
		],
		[
			"another time",
			send("GET", "/api/tags", now, { target: `/api/tags?ts=${now + 1}` }),
		],
		["no time", send("GET", "/api/tags", now, { target: "/api/tags" })],
		[
			"more in the query",
			send("GET", "/api/tags", now, { target: `/api/tags?ts=${now}&x=1` }),
		],
		[
			"the time twice",
			send("GET", "/api/tags", now, {
				target: `/api/tags?ts=${now}&ts=${now}`,
			}),
		],
		[
			"a stranger's signature",
			send("GET", "/api/tags", now, {
				header: `${key}:${signLikeOllama("GET", "/api/tags", now, "stranger").header.split(":")[1]}`,
			}),
		],
		[
			"a stranger's key",
			send("GET", "/api/tags", now, {
				header: `${ollamaKeyPair("stranger").publicKey}:${signature}`,
			}),
		],
		[
			"the public key as a key",
			send("GET", "/api/tags", now, { header: `Bearer ${key}` }),
		],
	];
	for (const [what, attempt] of attempts)
		t.equal((await attempt).status, 401, what);
	t.equal(gate.standIn.calls.length, 0);
	t.ok(
		gate.log.some(({ event }) => event === "auth_failed"),
		"it counts as a wrong key",
	);
});

t.test("an unknown key beside a good signature is passed over", async (t) => {
	const { gate, send } = await start(t);
	const beside = (name: string) =>
		send("GET", "/api/tags", seconds(), {
			name,
			extra: { "x-api-key": testKeys.wrong },
		});
	t.equal((await beside("cli")).status, 200);
	t.equal((await beside("stranger")).status, 401);
	t.equal(
		gate.log.filter(({ event }) => event === "auth_failed").length,
		2,
		"without one both are guesses",
	);
});

t.test("a clock that is off is 403, and says how far", async (t) => {
	const { gate, send } = await start(t);
	for (const off of [-3600, -40, 40, 3600]) {
		const { status, text } = await send("GET", "/api/tags", seconds() + off);
		t.equal(status, 403, `${off}`);
		t.match(
			text,
			off < 0
				? /clock is \d+ s behind the server's/
				: /clock is \d+ s ahead of the server's/,
		);
	}
	for (const off of [-25, 25])
		t.equal(
			(await send("GET", "/api/tags", seconds() + off)).status,
			200,
			`${off}`,
		);
	t.notOk(
		gate.log.some(({ event }) => event === "auth_failed"),
		"it is no wrong key",
	);
});

t.test(
	"a signature may be used as often as a burst needs, and no more",
	async (t) => {
		const { gate, send } = await start(t);
		const now = seconds();
		for (let i = 0; i < maxUses; i++)
			t.equal((await send("GET", "/api/version", now)).status, 200);
		const replay = await send("GET", "/api/version", now);
		t.equal(replay.status, 403);
		t.match(replay.text, /too often within a second/);
		t.equal(
			(await send("GET", "/api/version", now + 1)).status,
			200,
			"the next second is another",
		);
		t.equal(gate.standIn.calls.length, maxUses + 1);
	},
);

t.test(
	"a key of Ollama's is registered from its public file, and revoked like any other",
	async (t) => {
		const { gate, send } = await start(t);
		const file = path.join(gate.folder, "id_ed25519.pub");
		await writeFile(
			file,
			`ssh-ed25519 ${ollamaKeyPair("desk").publicKey} me@desk\n`,
		);
		const keys = (...args: string[]) =>
			runCli(["keys", ...args, "--config", gate.configFile]);
		t.equal(
			(await send("GET", "/api/tags", seconds(), { name: "desk" })).status,
			401,
		);
		const added = await keys("add", "desk", "--ollama-key", file);
		t.equal(added.code, 0, added.stderr);
		t.equal(added.stdout, "");
		t.equal(
			(await send("GET", "/api/tags", seconds(), { name: "desk" })).status,
			200,
		);
		t.match(
			(await keys("list")).stdout,
			/desk {2,}active .*\n.*signs by the ollama command/,
		);
		t.equal((await keys("add", "again", "--ollama-key", file)).code, 1);
		t.equal((await keys("rotate", "desk")).code, 1);
		await writeFile(file, "ssh-rsa AAAAB3NzaC1yc2E me@desk\n");
		const wrong = await keys("add", "rsa", "--ollama-key", file);
		t.equal(wrong.code, 1);
		t.match(wrong.stderr, /not an ed25519 public key/);
		t.equal((await keys("revoke", "desk")).code, 0);
		t.equal(
			(await send("GET", "/api/tags", seconds(), { name: "desk" })).status,
			401,
		);
	},
);

t.test(
	"a canary of Ollama's kind answers like a stranger, and raises the alarm only when it has signed",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "bait",
					ollamaKey: ollamaKeyPair("bait").publicKey,
					canary: true,
				},
			],
		});
		const ask = async (
			name: string,
			at: number,
			header = signLikeOllama("GET", "/api/tags", at, name).header,
		) => {
			const response = await fetch(`${gate.url}/api/tags?ts=${at}`, {
				headers: { authorization: header },
			});
			return { status: response.status, text: await response.text() };
		};
		const now = seconds();
		const stranger = await ask("nobody", now);
		t.equal(stranger.status, 401);
		t.strictSame(await ask("bait", now), stranger);
		t.strictSame(
			await ask("bait", now - 3600),
			stranger,
			"whatever its clock says",
		);
		const { header } = signLikeOllama("GET", "/api/tags", now, "nobody");
		await ask(
			"bait",
			now,
			`${ollamaKeyPair("bait").publicKey}:${header.split(":")[1]}`,
		);
		await gate.logged(({ event }) => event === "canary_used");
		t.equal(gate.log.filter(({ event }) => event === "canary_used").length, 2);
	},
);
