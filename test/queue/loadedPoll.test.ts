import t from "tap";
import { LoadedPoll } from "../../src/queue/loadedPoll.ts";
import { Turns } from "../../src/queue/turns.ts";
import { defaultSettings } from "./simulation.ts";

t.test(
	"a time to look again is heeded only where something could be sent then",
	async (t) => {
		const timers = t.capture(globalThis, "setTimeout", globalThis.setTimeout);
		/** Ollama, which does not answer. */
		const silent = {
			known: () => undefined,
			read: async () => {},
			loaded: () => new Promise<undefined>(() => {}),
			nameOf: () => undefined,
			isUp: async () => true,
		};
		const turns = new Turns({ ...defaultSettings, parallel: 4 });
		turns.loaded(new Set(["m"]), 0);
		const asked = { share: 1, model: "m", isStream: true } as const;
		const own = { ...asked, user: "ann", priority: "normal" } as const;
		const places = [1, 2, 3].flatMap(() => turns.pass(own, 0) ?? []);
		for (const place of places) turns.finished(place, 1_000);
		turns.pass({ ...own, user: "bob" }, 1_000);
		for (let count = 0; count < 3; count += 1) turns.pass(own, 1_000);
		turns.arrived(own, 1_000);
		const look = () => {};
		const watch = (maySend: boolean) => {
			const poll = new LoadedPoll(() => silent, look, look);
			poll.watch(turns, maySend);
			poll.stop();
			return timers().filter(({ args }) => args[0] === look).length;
		};
		const [running] = [...turns.models].flatMap((model) => [...model.running]);
		if (running !== undefined) turns.finished(running, 1_100);
		turns.next(1_100);
		t.equal(turns.waiting, 1);
		t.ok(
			turns.wakeMs < Number.POSITIVE_INFINITY,
			"it is held back for a while",
		);
		t.equal(
			watch(false),
			0,
			"all connections are in use: it would look in vain",
		);
		t.equal(watch(true), 1);
	},
);

t.test(
	"what is loaded is asked once a second while a load takes long",
	async (t) => {
		let nowMs = 0;
		t.intercept(performance, "now", { value: () => nowMs });
		let asked = 0;
		const empty = {
			known: () => undefined,
			read: async () => {},
			loaded: async () => {
				asked += 1;
				return new Set<string>();
			},
			nameOf: () => undefined,
			isUp: async () => true,
		};
		const turns = new Turns({ ...defaultSettings, parallel: 1 });
		turns.loaded(new Set(), 0);
		turns.arrived(
			{
				...{ share: 1, model: "m", isStream: true },
				...{ user: "ann", priority: "normal" },
			},
			0,
		);
		t.ok(turns.wantsLoad);
		const look = () => {};
		const poll = new LoadedPoll(() => empty, look, look);
		t.teardown(() => poll.stop());
		const until = async (endMs: number) => {
			asked = 0;
			for (; nowMs < endMs; nowMs += 50) {
				poll.watch(turns, true);
				await new Promise(setImmediate);
			}
			return asked;
		};
		t.equal(await until(2_000), 20);
		t.equal(await until(12_000), 10);
		poll.rest();
		t.equal(await until(14_000), 20, "the next begins anew");
	},
);
