import { Readable } from "node:stream";
import t from "tap";
import type { StandInOptions } from "../../src/ollama/standIn.ts";
import type { Timings } from "../../src/probe/arrivals.ts";
import { openCaller } from "../../src/probe/caller.ts";
import { countGaps, drawGaps } from "../../src/probe/gaps.ts";
import { judgeCancel } from "../../src/probe/leaving.ts";
import { checkStream, judgeCollecting } from "../../src/probe/stream.ts";
import type { Result } from "../../src/report/result.ts";
import { startGate, testKeys } from "../support/gate.ts";
import { collecting, type Meddling, startMiddleman } from "./middlemen.ts";

type Tap = Parameters<typeof startGate>[0];

async function streamThrough(t: Tap, url: string, waitMs = 60_000) {
	const caller = openCaller(url, ["127.0.0.1"]);
	t.teardown(() => caller.close());
	const { results, timings } = await checkStream(
		caller,
		testKeys.user,
		["qwen3:8b"],
		waitMs,
	);
	const of = (id: string): Result | undefined =>
		results.find((result) => result.id === `probe.${id}`);
	return {
		stream: of("stream"),
		uncollected: of("uncollected"),
		afterLeaving: of("after-leaving"),
		cancel: of("cancel"),
		timings,
	};
}

/** The same, until it can tell how the next stream waited: on a machine that is busy with other things it says that it cannot. */
async function tellCancel(t: Tap, url: string) {
	let seen = await streamThrough(t, url);
	for (let tries = 3; tries > 1 && seen.cancel?.state === "unknown"; tries -= 1)
		seen = await streamThrough(t, url);
	return seen;
}

/** A gate, with something in front of it. */
async function behind(
	t: Tap,
	meddling: Meddling,
	standIn: StandInOptions = { tokenIntervalMs: 20 },
) {
	const gate = await startGate(t, { standIn });
	return startMiddleman(t, gate.url, meddling);
}

t.test(
	"tokens that come one by one are no finding, also through a proxy that passes them on",
	async (t) => {
		const seen = await streamThrough(t, await behind(t, {}));
		const { timings, ...results } = seen;
		for (const [id, result] of Object.entries(results))
			t.match(result, { state: "ok" }, id);
		t.match(timings, { model: "qwen3:8b", tokens: 48 });
		t.equal(timings?.gapsMs.length, (timings?.arrivals ?? 0) - 1);
	},
);

t.test("a proxy that collects the stream is found", async (t) => {
	for (const chunks of [8, Number.POSITIVE_INFINITY]) {
		const meddling = { body: collecting(chunks) };
		const url = await behind(t, meddling, { tokenIntervalMs: 10 });
		const seen = await streamThrough(t, url);
		t.match(seen.stream, { state: "ok" });
		t.match(
			seen.uncollected,
			{
				state: "finding",
				severity: "warn",
				evidence: [/^48 tokens in \d arrivals/],
				fix: /proxy_buffering off/,
			},
			String(chunks),
		);
	}
});

t.test("one stream that stalled on the way was not collected", async (t) => {
	let streams = 0;
	const url = await behind(t, {
		body: (reply, res) => {
			const isFirst =
				reply.headers["content-type"]?.includes("ndjson") && streams++ === 0;
			if (isFirst) collecting(Number.POSITIVE_INFINITY)(reply, res);
			else reply.pipe(res);
		},
	});
	const seen = await streamThrough(t, url);
	t.match(seen.stream, { state: "ok" });
	t.match(seen.uncollected, {
		state: "unknown",
		evidence: [/^48 tokens in 1 arrivals/, String, /another stream/],
	});
});

t.test(
	"a stream that breaks off, or has an error in it, is found",
	async (t) => {
		for (const [misbehaviour, evidence] of [
			["die-mid-stream", /it broke off after \d+ tokens|without its last line/],
			[
				"error-mid-stream",
				/it broke off after 4 tokens: an error was encountered/,
			],
			["truncate", /it broke off|without its last line/],
		] as const) {
			const url = await behind(t, {}, { misbehave: () => misbehaviour });
			const seen = await streamThrough(t, url);
			t.match(
				seen.stream,
				{ state: "finding", evidence: [evidence] },
				misbehaviour,
			);
			t.match(seen.uncollected, { state: "unknown" });
		}
	},
);

/** Replies to a chat with these parts, and nothing between them. */
function replying(
	status: number,
	part: string,
	count: number,
): Required<Pick<Meddling, "answers">> {
	return {
		answers: (req, res) => {
			if (req.url !== "/api/chat") return false;
			res.statusCode = status;
			Readable.from(Array<string>(count).fill(part)).pipe(res);
			return true;
		},
	};
}

t.test("a stream without an end or a measure is left", async (t) => {
	const token = '{"message":{"content":"x"}}\n';
	for (const [part, count, evidence] of [
		["x".repeat(2 ** 16), 2 ** 7, /a line of more than 256 KiB/],
		[`${'{"message":{}}\n'.repeat(2 ** 12)}`, 2 ** 7, /more than 4 MiB/],
		[token.repeat(100), 100, /more than 1000 tokens, and 48 were asked for/],
	] as const) {
		const url = await behind(t, replying(200, part, count));
		t.match((await streamThrough(t, url)).stream, {
			state: "finding",
			evidence: [evidence],
		});
	}
	const refusal = `{"error":"${"x".repeat(2 ** 17)}"}`;
	const url = await behind(t, replying(404, refusal, 1));
	t.strictSame((await streamThrough(t, url)).stream?.evidence, [
		"POST /api/chat for qwen3:8b: 404",
	]);
});

t.test("a stream that trickles has its time and no more", async (t) => {
	const url = await behind(t, {
		answers: (_req, res) => {
			const timer = setInterval(() => res.write("\n"), 50);
			res.once("close", () => clearInterval(timer));
			return true;
		},
	});
	const caller = openCaller(url, ["127.0.0.1"]);
	t.teardown(() => caller.close());
	const reply = await caller.open(
		{ method: "GET", path: "/" },
		{ waitMs: 5_000, silenceMs: 5_000, wholeMs: 500 },
	);
	if (!("status" in reply)) throw new Error(reply.code);
	const readAll = async () => {
		for await (const _ of reply.chunks);
	};
	await t.rejects(readAll(), { name: "TimeoutError" });
});

t.test(
	"a model that takes longer to load than the timeout is found",
	async (t) => {
		const url = await behind(t, {}, { misbehave: () => "hang" });
		const seen = await streamThrough(t, url, 1_000);
		t.match(seen.stream, { state: "finding", fix: /--timeout 15m/ });
	},
);

t.test("a model that is not there, or a busy server, is said", async (t) => {
	const gate = await startGate(t, { standIn: { models: ["other:1b"] } });
	const missing = await streamThrough(t, gate.url);
	t.match(missing.stream, {
		state: "finding",
		evidence: [/404, "model 'qwen3:8b' not found"/],
		fix: /--model/,
	});
	const busy = await behind(t, {
		answers: (req, res) => {
			if (req.url !== "/api/chat") return false;
			res.statusCode = 503;
			res.end('{"error":"server busy"}');
			return true;
		},
	});
	t.match((await streamThrough(t, busy)).stream, { state: "unknown" });
});

t.test(
	"an Ollama that goes on for nobody makes the next stream wait, which is found",
	async (t) => {
		const plain = await startGate(t, { standIn: { tokenIntervalMs: 6 } });
		const deaf = await startMiddleman(t, plain.standIn.url, {
			isDeaf: true,
			isSlow: true,
			// Longer than half of what is left of the stream that nobody reads.
			coldMs: 1_500,
		});
		const gate = await startGate(t, { upstreamUrl: deaf });
		const seen = await tellCancel(t, gate.url);
		t.match(seen.afterLeaving, { state: "ok" });
		t.match(seen.cancel, {
			state: "finding",
			severity: "warn",
			evidence: [String, /for nobody/],
		});
		// The same with one reply at a time, and one that stops when its client has left.
		const heedful = await startMiddleman(t, plain.standIn.url, {
			isSlow: true,
		});
		const other = await startGate(t, { upstreamUrl: heedful });
		t.match((await tellCancel(t, other.url)).cancel, { state: "ok" });
	},
);

t.test("a gate that is dead after a client has left is found", async (t) => {
	let streams = 0;
	const url = await behind(t, {
		answers: (req) => {
			if (req.url === "/api/chat") streams += 1;
			// While the second stream runs, and ever after.
			const isDead = streams > 2 || (streams === 2 && req.url !== "/api/chat");
			if (isDead) req.socket.destroy();
			return isDead;
		},
	});
	const seen = await streamThrough(t, url);
	t.match(seen.stream, { state: "ok" });
	t.match(seen.afterLeaving, { state: "finding", severity: "high" });
	t.match(seen.cancel, { state: "finding" });
});

t.test(
	"another answer than before the stream is found, as a proxy's in place of the gate",
	async (t) => {
		for (const [status, isBroken] of [
			[502, (streams: number) => streams >= 2],
			[404, (streams: number) => streams >= 2],
			// Also where it was no better before.
			[502, () => true],
		] as const) {
			let streams = 0;
			const url = await behind(t, {
				answers: (req, res) => {
					if (req.url === "/api/chat") streams += 1;
					const answers = req.url === "/api/version" && isBroken(streams);
					if (answers) res.writeHead(status).end();
					return answers;
				},
			});
			const seen = await streamThrough(t, url);
			t.match(seen.afterLeaving, {
				state: "finding",
				evidence: [
					new RegExp(
						`answered with ${status}; before the stream with (401|502)`,
					),
				],
			});
			t.match(seen.cancel, { state: "ok" });
		}
	},
);

function timings(more: Partial<Timings>): Timings {
	return {
		model: "m",
		firstTokenMs: 100,
		spanMs: 2_000,
		tokens: 48,
		arrivals: 48,
		gapsMs: [],
		madePerTokenMs: 42,
		...more,
	};
}

t.test("tokens are judged by the pace at which they were made", async (t) => {
	t.match(judgeCollecting(timings({})), { state: "ok" });
	// A network that joins two now and then is no proxy.
	t.match(judgeCollecting(timings({ arrivals: 30 })), { state: "ok" });
	t.match(judgeCollecting(timings({ arrivals: 23 })), { state: "finding" });
	// One by one again, but all at the end.
	t.match(judgeCollecting(timings({ spanMs: 50 })), { state: "finding" });
	// So fast that they come together by themselves.
	t.match(
		judgeCollecting(timings({ arrivals: 3, spanMs: 20, madePerTokenMs: 0.5 })),
		{ state: "unknown" },
	);
	t.match(judgeCollecting(timings({ arrivals: 3, tokens: 4 })), {
		state: "unknown",
	});
	// An Ollama that does not tell.
	t.match(judgeCollecting(timings({ madePerTokenMs: undefined })), {
		state: "ok",
	});
	t.match(
		judgeCollecting(timings({ madePerTokenMs: undefined, arrivals: 10 })),
		{ state: "finding" },
	);
});

t.test(
	"a wait for the next stream is judged by what was left to do",
	async (t) => {
		t.match(judgeCancel(300, 250, 20_000), { state: "ok" });
		// So short a wait says nothing, also where it is a hundred times another.
		t.match(judgeCancel(300, 3, 20_000), { state: "ok" });
		t.match(judgeCancel(18_000, 250, 20_000), { state: "finding" });
		// It waited for something, but not for all that was left.
		t.match(judgeCancel(8_000, 250, 20_000), { state: "unknown" });
		// A slow model is slow for the next one, too.
		t.match(judgeCancel(12_000, 10_000, 20_000), { state: "ok" });
		t.match(judgeCancel(18_000, 15_000, 20_000), { state: "unknown" });
		t.match(judgeCancel(18_000, 15_000, 3_000), { state: "unknown" });
		t.match(judgeCancel(300, 250, 500), { state: "unknown" });
	},
);

t.test(
	"gaps are counted and drawn from the shortest to the longest",
	async (t) => {
		t.strictSame(countGaps([0.5, 12, 12, 12, 12, 5_000]), [
			{ fromMs: 0, toMs: 1, count: 1 },
			{ fromMs: 1, toMs: 3, count: 0 },
			{ fromMs: 3, toMs: 10, count: 0 },
			{ fromMs: 10, toMs: 30, count: 4 },
			{ fromMs: 30, toMs: 100, count: 0 },
			{ fromMs: 100, toMs: 300, count: 0 },
			{ fromMs: 300, toMs: 1_000, count: 0 },
			{ fromMs: 1_000, toMs: Number.POSITIVE_INFINITY, count: 1 },
		]);
		const lines = drawGaps([12, 12, 12, 12, 50]);
		t.match(lines[0], /^ +10–30 ms {4}4 █{40}$/);
		t.match(lines[1], /^ +30–100 ms {4}1 █{10}$/);
		t.strictSame(drawGaps([]), []);
	},
);
