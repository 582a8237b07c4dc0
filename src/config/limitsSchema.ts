import { sizePattern } from "../duration.ts";
import { count, duration, section } from "./schemaNodes.ts";

/** The section `limits`. */
export const limitsSchema = section(
	{
		perKey: section(
			{
				requestsPerMinute: count(600, "Requests a minute for one key."),
				concurrent: count(
					16,
					"Requests at once for one key. Reading (lists, descriptions) is counted apart, up to the same number.",
				),
			},
			"Limits of each key; an entry of the keys file may set its own.",
		),
		perSource: section(
			{
				requestsPerMinute: count(1200, "Requests a minute from one address."),
			},
			"Limits of each client address. There is none of its streams at once: each belongs to a key, whose `limits.perKey.concurrent` bounds it, and programs or people that share an address, as behind a proxy or in containers, would shut one another out. Of connections on which no key was shown an address may hold 1,024.",
		),
		authFailures: section(
			{
				max: count(
					10,
					"Different wrong keys from one device within `window` that lock it out.",
				),
				window: duration("1m", "The time in which they are counted."),
				lockout: duration(
					"5m",
					"How long it is answered 429, whatever key it sends; `llamagate unlock` ends it sooner.",
				),
			},
			"The lockout after wrong keys.",
		),
		body: {
			type: "string",
			pattern: sizePattern,
			"x-expected": 'a size such as "512KiB" or "64MiB"',
			default: "64MiB",
			description:
				"The largest request body for inference (images travel inside it). Other calls take 1 MiB at the most; blob uploads have no limit.",
		},
	},
	"How much one client may ask for.",
);
