import type { Settings } from "../../config/load.ts";
import { formatUpstream, type HostSettings } from "../../config/upstreams.ts";
import { ask } from "../ask.ts";
import { Host } from "./host.ts";
import { lookAt } from "./look.ts";

/** What a host says when it is asked once. */
export interface Tried {
	readonly name: string;
	readonly url: string;
	/** How many models it has; `undefined` where it does not answer as it should. */
	readonly models: number | undefined;
	/** What is wrong; `undefined` where nothing is. */
	readonly why: string | undefined;
	/** How many requests a minute its gate lets this one make; `undefined` if it does not say. */
	readonly perMinute: number | undefined;
	/** It lets a person in who shows no key, and is not a llamagate that knows whose device this is. */
	readonly isBare: boolean;
}

/** Asks a host once, as the gate would, and whether it asks for a key. Never rejects. */
export async function tryOut(
	settings: HostSettings,
	limits: Settings["upstream"],
	key: string | undefined,
): Promise<Tried> {
	const host = new Host(settings, limits, key, () => {});
	const stranger = new Host(settings, limits, undefined, () => {});
	try {
		const event = await lookAt(host, true);
		const isBare = key !== undefined && (await letsIn(stranger));
		const models = event.kind === "answered" ? host.catalog?.size : undefined;
		return {
			name: settings.name,
			url: formatUpstream(settings.target),
			models,
			why:
				models !== undefined
					? undefined
					: "why" in event
						? event.why
						: event.kind === "answered"
							? "has been asked too often with this gate's key (429)"
							: "does not answer in time",
			perMinute: host.perMinute,
			isBare,
		};
	} finally {
		for (const { asking } of [host, stranger]) asking.destroy();
	}
}

async function letsIn({ asking, kind }: Host): Promise<boolean> {
	const answer = await ask(
		asking,
		kind === "ollama" ? "/api/tags" : "/v1/models",
		{ timeoutMs: 3_000, maxBytes: 4 * 2 ** 20 },
	);
	return (
		answer.kind === "answer" &&
		answer.status === 200 &&
		// A gate may let this device in by its login.
		!answer.headers.includes("x-request-id")
	);
}
