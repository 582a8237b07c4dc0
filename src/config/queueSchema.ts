import { count, duration, section, wholeNumber } from "./schemaNodes.ts";

/** The section `queue`. */
export const queueSchema = section(
	{
		mode: {
			type: "string",
			enum: ["fair", "off"],
			"x-expected": '"fair" or "off"',
			default: "fair",
			description:
				"`fair` lets requests wait for a free place of their model and gives it to whom it is owed; `off` passes each on at once, and Ollama serves them as they come.",
		},
		parallel: {
			// A keyword of the one type says nothing of the other.
			type: ["integer", "string"],
			minimum: 1,
			maximum: 1024,
			pattern: "^auto$",
			"x-expected": '"auto" or a whole number from 1 to 1024',
			default: "auto",
			description:
				"Requests that Ollama works on at once for each model: its own `OLLAMA_NUM_PARALLEL`, which `llamagate setup` writes here where it can read it. `auto` finds it out.",
		},
		maxWaiting: count(
			512,
			"Requests that wait in all. One more is answered 503.",
		),
		maxWaitingPerUser: count(
			64,
			"Requests of one user that wait. One more is answered 429.",
		),
		maxWait: section(
			{
				interactive: duration("2m", "For keys of class `interactive`."),
				normal: duration(
					"10m",
					"For keys of class `normal`, which is every key that names no other.",
				),
				batch: duration("6h", "For keys of class `batch`."),
			},
			"How long a user's waiting requests may be passed over, counted from the end of its last one. After that the oldest goes before those of all who have waited less for their class.",
		),
		turnFactor: wholeNumber(
			...([8, 1, 1000] as const),
			"Where not all models fit into memory at once: a model keeps its turn for this many times as long as it took to load, while others wait. With 8, loading takes a ninth of the time at the most.",
		),
		loadGrace: duration(
			"10m",
			"How long a model goes on loading for a client that has left.",
		),
		announceAfter: duration(
			"15s",
			"After this time a client that asked for an event stream is told, by comments in it, how many are ahead.",
		),
	},
	"Whose turn it is where several ask at once; docs/queue.md explains it.",
);
