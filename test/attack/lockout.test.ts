import t from "tap";
import { generateKey } from "../../src/keys/newKey.ts";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	shows,
	statusOf,
	strayCalls,
} from "../support/raw.ts";

const guesser = "127.0.0.2";
/** A wrong key that nobody has shown before. */
const wrong = () => shows(generateKey());
const right = shows(testKeys.owner);

function get(...lines: readonly string[]): string {
	return head("GET /api/tags HTTP/1.1", "Host: gate", ...lines);
}

t.test(
	"ten wrong keys lock an address out, for the right key too",
	async (t) => {
		const gate = await startGate(t);
		for (let guess = 1; guess <= 10; guess++)
			t.equal((await attack(gate, get(wrong()), guesser)).status, 401);
		for (const request of [
			get(right),
			get(wrong()),
			get(),
			head("GET /no/such/path HTTP/1.1", "Host: gate", right),
			head("OPTIONS /api/chat HTTP/1.1", "Host: gate", right),
			head("CONNECT gate:1 HTTP/1.1", "Host: gate", right),
			"\0\0\0\r\n\r\n",
		]) {
			const { status, replies } = await attack(gate, request, guesser);
			t.equal(status, 429, JSON.stringify(request.slice(0, 30)));
			const seconds = Number(replies[0]?.headers["retry-after"]);
			t.ok(seconds >= 1 && seconds <= 300, `Retry-After: ${seconds}`);
		}
		t.equal((await statusOf(gate)).lockedOut, 1);
		t.equal(await honestStatus(gate), 200, "another address is served");
		t.equal(await honestStatus(gate, "127.0.0.3"), 200, "and another");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test("a lockout ends, and guessing may begin anew", async (t) => {
	const gate = await startGate(t, {
		config: {
			limits: { authFailures: { max: 3, lockout: "1s", window: "1s" } },
		},
	});
	for (let round = 0; round < 2; round++) {
		for (let guess = 0; guess < 3; guess++)
			await attack(gate, get(wrong()), guesser);
		t.equal((await attack(gate, get(right), guesser)).status, 429);
		await eventually(
			async () => (await attack(gate, get(right), guesser)).status === 200,
		);
	}
});

t.test("what is no guess does not count towards the lockout", async (t) => {
	const gate = await startGate(t);
	// Of a client that was left with an old key; the same one again is no other guess.
	const stale = shows(testKeys.wrong);
	const innocent = [
		get(stale),
		get(),
		get("Authorization:"),
		get("Authorization: Bearer"),
		get("X-Api-Key:"),
		get(wrong().replace("Bearer", "Digest")),
		get(right, stale),
		get(stale, `X-Api-Key: ${testKeys.owner}`),
		get("Authorization: Digest x"),
		head("GET / HTTP/1.1", "Host: gate"),
		"not HTTP at all\r\n\r\n",
		head("CONNECT gate:1 HTTP/1.1", "Host: gate"),
		head("GET /no/such/path HTTP/1.1", "Host: gate", right),
	];
	for (const request of innocent) {
		for (let time = 0; time < 12; time++) {
			const outcome = await attack(gate, request, guesser);
			t.not(outcome.status, 429, request);
		}
	}
	t.equal((await attack(gate, get(right), guesser)).status, 200);
});

/** Ten guesses of one kind, and then the right key. */
const ways: Record<string, (guess: number) => string> = {
	"as Bearer": () => get(wrong()),
	"as x-api-key": () => get(`X-Api-Key: ${generateKey()}`),
	"as Basic": () => get(`Authorization: Basic ${btoa(`x:${generateKey()}`)}`),
	"each of another length": (guess) => get(shows("k".repeat(guess * 200 + 1))),
	"for paths that do not exist": () =>
		head("GET /nothing HTTP/1.1", "Host: gate", wrong()),
	"by other methods": (guess) =>
		head(
			`${["OPTIONS", "TRACE", "PUT", "DELETE"][guess % 4]} /api/chat HTTP/1.1`,
			"Host: gate",
			wrong(),
		),
	"by HTTP/1.0": () => head("GET /api/tags HTTP/1.0", wrong()),
	"with an upgrade": () =>
		get(wrong(), "Connection: Upgrade", "Upgrade: websocket"),
	"waiting for 100": () => get(wrong(), "Expect: 100-continue"),
	"with an odd Expect": () => get(wrong(), "Expect: junk"),
	"under forwarded addresses": (guess) =>
		get(
			wrong(),
			`X-Forwarded-For: 100.64.0.${guess}`,
			`X-Real-IP: 100.64.0.${guess}`,
			`Forwarded: for=100.64.0.${guess}`,
			`True-Client-IP: 100.64.0.${guess}`,
			`CF-Connecting-IP: 100.64.0.${guess}`,
		),
	"with a body that is too large": () =>
		get(wrong(), "Content-Length: 9999999999"),
	"through CONNECT": () =>
		head("CONNECT gate:1 HTTP/1.1", "Host: gate", wrong()),
};
for (const [way, guessOf] of Object.entries(ways)) {
	t.test(`wrong keys ${way} count, each of them`, async (t) => {
		const gate = await startGate(t);
		for (let guess = 0; guess < 10; guess++) {
			t.equal(
				(await attack(gate, get(), guesser)).status,
				401,
				"not locked out yet",
			);
			t.equal((await attack(gate, guessOf(guess), guesser)).status, 401);
		}
		t.equal((await attack(gate, get(right), guesser)).status, 429);
		t.equal(
			gate.log.filter(({ event }) => event === "auth_failed").length,
			10,
			"and each has its line for fail2ban",
		);
		t.equal(await honestStatus(gate), 200, "another address is served");
	});
}

t.test("wrong keys count when they come all at once", async (t) => {
	const gate = await startGate(t);
	const guesses = await Promise.all(
		Array.from({ length: 40 }, () => attack(gate, get(wrong()), guesser)),
	);
	t.equal(guesses.filter(({ status }) => status === 401).length, 10);
	t.equal(guesses.filter(({ status }) => status === 429).length, 30);
	t.equal((await attack(gate, get(right), guesser)).status, 429);
});

t.test("wrong keys count when they are pipelined", async (t) => {
	const gate = await startGate(t);
	const client = await openRaw(gate.port, guesser);
	client.write(
		Array.from({ length: 20 }, () => get(wrong())).join("") + get(right),
	);
	const replies = await client.untilReplies(21);
	t.strictSame(
		replies.map(({ status }) => status),
		[...Array(10).fill(401), ...Array(11).fill(429)],
	);
	client.destroy();
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test(
	"nobody is locked out by what another address says of them",
	async (t) => {
		const gate = await startGate(t);
		for (let guess = 0; guess < 30; guess++)
			await attack(
				gate,
				get(
					wrong(),
					"X-Forwarded-For: 127.0.0.9",
					"X-Real-IP: 127.0.0.9",
					"Forwarded: for=127.0.0.9",
				),
				guesser,
			);
		t.equal(await honestStatus(gate, "127.0.0.9"), 200);
		t.ok(
			gate.log
				.filter(({ event }) => event === "auth_failed")
				.every(({ ip }) => ip === guesser),
			"the log names the address that guessed",
		);
	},
);

t.test(
	"a right key in between does not give a guesser more guesses",
	async (t) => {
		const gate = await startGate(t);
		for (let guess = 0; guess < 10; guess++) {
			t.equal((await attack(gate, get(right), guesser)).status, 200);
			t.equal((await attack(gate, get(wrong()), guesser)).status, 401);
		}
		t.equal((await attack(gate, get(right), guesser)).status, 429);
	},
);

t.test(
	"a connection that was let in before is locked out with its address",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port, guesser);
		client.write(get(right));
		t.equal((await client.untilReplies(1))[0]?.status, 200);
		for (let guess = 0; guess < 10; guess++)
			await attack(gate, get(wrong()), guesser);
		client.write(get(right));
		t.equal((await client.untilReplies(2))[1]?.status, 429);
		client.destroy();
	},
);
