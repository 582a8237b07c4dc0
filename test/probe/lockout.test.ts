import { execFile } from "node:child_process";
import type { Server } from "node:http";
import t from "tap";
import { openCaller } from "../../src/probe/caller.ts";
import { checkLockout } from "../../src/probe/lockout.ts";
import { runCli, startGate, testKeys } from "../support/gate.ts";
import { program } from "../support/program.ts";
import { requireTool } from "../support/tools.ts";
import { startMiddleman } from "./middlemen.ts";

type Tap = Parameters<typeof startGate>[0];

async function lockOut(t: Tap, url: string) {
	const caller = openCaller(url, ["127.0.0.1"]);
	t.teardown(() => caller.close());
	return checkLockout(caller);
}

const lenient = { limits: { authFailures: { max: 1_000 } } };

t.test(
	"a real gate locks out after the number that is configured",
	async (t) => {
		for (const max of [10, 3]) {
			const gate = await startGate(t, {
				config: { limits: { authFailures: { max } } },
			});
			t.match(await lockOut(t, gate.url), {
				state: "ok",
				evidence: [
					new RegExp(`^after ${max} wrong keys: 429, "too many wrong keys`),
					/^this device is locked out for \d+ s/,
				],
			});
			t.equal(
				gate.log.filter(({ event }) => event === "auth_failed").length,
				max,
			);
		}
	},
);

t.test(
	"a gate that takes any number of wrong keys is found, after 30",
	async (t) => {
		const gate = await startGate(t, { config: lenient });
		t.match(await lockOut(t, gate.url), {
			state: "finding",
			severity: "high",
			fix: /authFailures/,
		});
		t.equal(gate.log.filter(({ event }) => event === "auth_failed").length, 30);
	},
);

t.test("a lockout that does not say for how long is found", async (t) => {
	const gate = await startGate(t);
	const url = await startMiddleman(t, gate.url, {
		head: (headers) => {
			delete headers["retry-after"];
		},
	});
	t.match(await lockOut(t, url), {
		state: "finding",
		evidence: [String, /Retry-After is missing/],
	});
	const other = await startGate(t);
	t.match(
		await lockOut(t, await startMiddleman(t, other.url, { errorPage: "" })),
		{ state: "finding", evidence: [String, /not an error of Ollama's API/] },
	);
});

/** Hangs up on the calls with these numbers, from 1; from the last of them on it also stops listening, if it is to. */
async function hangUpOn(
	t: Tap,
	gate: { url: string },
	calls: readonly number[],
	stopsListening = false,
): Promise<string> {
	let made = 0;
	return startMiddleman(t, gate.url, {
		answers: (req) => {
			made += 1;
			if (!calls.includes(made)) return false;
			if (stopsListening) {
				const { server } = req.socket as unknown as { server: Server };
				server.close();
				server.closeAllConnections();
			}
			req.socket.destroy();
			return true;
		},
	});
}

t.test("a host that bans is a lockout as well", async (t) => {
	const gate = await startGate(t, { config: lenient });
	t.match(await lockOut(t, await hangUpOn(t, gate, [8], true)), {
		state: "ok",
		evidence: [/^after 7 wrong keys .* banned/, /unbanip/],
	});
	// That early it may as well be a server that has died.
	t.match(await lockOut(t, await hangUpOn(t, gate, [4], true)), {
		state: "unknown",
		evidence: [/after 3 wrong keys.*ECONNREFUSED/],
	});
});

t.test("a lost connection is no ban", async (t) => {
	const lockingOut = await startGate(t);
	t.match(await lockOut(t, await hangUpOn(t, lockingOut, [8])), {
		state: "ok",
		evidence: [/^after 10 wrong keys: 429/],
	});
	const gate = await startGate(t, { config: lenient });
	t.match(await lockOut(t, await hangUpOn(t, gate, [8])), {
		state: "finding",
		evidence: [/^29 wrong keys .* 401/],
	});
	// Whoever takes connections and hangs up bans nobody.
	t.match(await lockOut(t, await hangUpOn(t, gate, [8, 9, 10, 11])), {
		state: "unknown",
		evidence: [/^after 7 wrong keys/],
	});
});

t.test(
	"--lockout says what it does and asks first; without a terminal it needs --yes",
	async (t) => {
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
		const asked = await runCli(
			["probe", gate.url, "--key-stdin", "--lockout"],
			testKeys.user,
		);
		t.equal(asked.code, 1);
		t.match(asked.stderr, /refuse this very device for minutes/);
		t.match(asked.stderr, /fail2ban/);
		t.match(asked.stderr, /add --yes/);
		t.equal(asked.stdout, "");
		t.strictSame(
			gate.log.filter(({ msg }) => msg === "request"),
			[],
		);

		const agreed = await runCli(
			["probe", gate.url, "--key-stdin", "--lockout", "--yes"],
			testKeys.user,
		);
		t.equal(agreed.code, 0);
		t.match(agreed.stderr, /refuse this very device/);
		t.match(agreed.stdout, /^ok +probe\.lockout/m);
		// Locked out is what the next run finds, and it calls nothing fine.
		const again = await runCli(
			["probe", gate.url, "--key-stdin", "--json"],
			testKeys.user,
		);
		const { results } = JSON.parse(again.stdout) as {
			results: { id: string; state: string; evidence: string[] }[];
		};
		t.match(
			results.find(({ id }) => id === "probe.reachable"),
			{ state: "unknown", evidence: [/429/, /wait \d+ s/] },
		);
		t.strictSame(
			results.filter(({ state }) => state === "ok").map(({ id }) => id),
			["probe.encrypted"],
		);
	},
);

t.test(
	"at a terminal it asks first, and reads the key to Enter without showing it",
	async (t) => {
		if (!requireTool(t, "python3")) return;
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
		const at = (...typed: readonly (readonly [string, string])[]) =>
			run("python3", [
				...["test/probe/atTerminal.py", JSON.stringify(typed)],
				...[process.execPath, program, "probe", gate.url],
				...["--key-stdin", "--lockout"],
			]);
		const refused = await at(["[y/N]", "n\r"]);
		t.equal(refused.code, 1);
		t.notMatch(refused.stdout, /paste the key/);

		const { code, stdout } = await at(
			["[y/N]", "y\r"],
			["paste the key", `${testKeys.user}\r`],
		);
		t.equal(code, 0, stdout);
		t.match(stdout, /probe\.key-accepted/);
		t.match(stdout, /this device is locked out for/);
		t.notOk(stdout.includes(testKeys.user));
	},
);

/** A program's output and exit code, also where that is not 0. */
function run(
	file: string,
	args: readonly string[],
): Promise<{ code: unknown; stdout: string }> {
	return new Promise((resolve) => {
		execFile(file, args, (error, stdout) =>
			resolve({ code: error?.code ?? 0, stdout }),
		);
	});
}
