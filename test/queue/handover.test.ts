import type { Socket } from "node:net";
import t from "tap";
import { FairQueue } from "../../src/queue/queue.ts";
import type { Ticket } from "../../src/queue/ticket.ts";
import { Upstream } from "../../src/upstream/client.ts";
import { eventually } from "../support/gate.ts";
import { startRawServer } from "../support/rawServer.ts";

/** The next request is sent by what happens, in a queue whose timers do nothing: nobody sweeps it, and Ollama answers none of its questions. */

const never = new Promise<never>(() => {});
const reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/** An Ollama with one connection and two places, and the queue for it. */
async function start(t: { teardown(action: () => unknown): unknown }) {
	/** Where each request that it has been sent came. */
	const asked: Socket[] = [];
	const { port } = await startRawServer(t, (socket) =>
		socket.on("data", () => asked.push(socket)),
	);
	const upstream = new Upstream({
		target: { kind: "tcp", host: "127.0.0.1", port },
		connectTimeoutMs: 5_000,
		firstByteTimeoutMs: 5_000,
		idleTimeoutMs: 5_000,
		maxConnections: 1,
	});
	t.teardown(() => upstream.destroy());
	const back = Promise.withResolvers<boolean>();
	const queue = new FairQueue(
		{
			mode: "fair",
			parallel: 2,
			maxWaiting: 100,
			maxWaitingPerUser: 100,
			maxWaitMs: { interactive: 1e9, normal: 1e9, batch: 1e9 },
			turnFactor: 8,
			loadGraceMs: 1e9,
			announceAfterMs: 1e9,
		},
		() => upstream,
		undefined,
		() => ({
			known: (key) => ({ kind: "here", key }),
			read: () => never,
			loaded: () => never,
			nameOf: () => undefined,
			isUp: () => back.promise,
		}),
	);
	const call = {
		...{ method: "GET", path: "/", headers: [], body: undefined },
	};
	const sent = (ticket?: () => Ticket) =>
		upstream.send(call, {
			head: ({ status }) => ticket?.().answered(status, false),
			data: () => true,
			ready() {},
			end: () => ticket?.().end(),
			failed: () => ticket?.().end("died"),
		});
	return {
		asked,
		queue,
		isBack: () => back.resolve(true),
		/** Sends something that has no turn. */
		ask: () => sent(),
		enter() {
			const ticket = queue.enter({
				...{ user: "a", share: 1, priority: "normal", model: "m" },
				...{ isStream: false, pieces: 0, hasTokens: true },
				go: () => void sent(() => ticket),
				refused() {},
				left() {},
				stillWaits() {},
				dropLoad() {},
			});
			return ticket;
		},
	};
}

t.test(
	"who waits for the only connection has it as soon as the reply on it is whole",
	async (t) => {
		const { asked, queue, enter } = await start(t);
		const tickets = [enter(), enter(), enter()];
		for (let turn = 1; turn <= tickets.length; turn += 1) {
			await eventually(() => asked.length === turn);
			asked.at(-1)?.write(reply);
		}
		await eventually(() => tickets.every(({ state }) => state === "over"));
		t.equal(new Set(asked).size, 1, "all on one connection");
		t.match(queue.stats(), { waiting: { normal: 0 }, running: 0 });
	},
);

t.test("so it is where what ends on it had no turn", async (t) => {
	const { asked, queue, ask, enter } = await start(t);
	for (const end of ["reply", "abort"]) {
		const before = asked.length;
		const other = ask();
		const ticket = enter();
		await eventually(() => asked.length === before + 1);
		t.equal(queue.waiting, 1);
		if (end === "abort") other.abort();
		else asked.at(-1)?.write(reply);
		await eventually(() => asked.length === before + 2);
		asked.at(-1)?.write(reply);
		await eventually(() => ticket.state === "over");
	}
});

t.test(
	"where the connection breaks, nothing is sent before Ollama is known to be there",
	async (t) => {
		const { asked, queue, isBack, enter } = await start(t);
		const first = enter();
		enter();
		await eventually(() => asked.length === 1);
		asked[0]?.resetAndDestroy();
		await eventually(() => first.state === "over");
		await new Promise(setImmediate);
		t.equal(queue.waiting, 1);
		isBack();
		await eventually(() => asked.length === 2);
	},
);
