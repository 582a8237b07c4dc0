import type { Fields, Scalar } from "../ollama/bodyFinds.ts";
import { BodyScan, type ScanResult } from "../ollama/bodyScan.ts";
import { FormScan } from "../ollama/formScan.ts";
import { multipartRoute, type Route } from "../ollama/routes.ts";
import { WatchList } from "../ollama/watchedNames.ts";
import type { Head } from "./requestHead.ts";
import type { GateState } from "./state.ts";

/** What of an inference body the queue goes by. */
export interface Facts {
	/** As the body names it, empty if it names none; `undefined` where Ollama might read another. */
	readonly model: string | undefined;
	/** Whether the reply is to be a stream. */
	readonly isStream: boolean;
}

/** Reads the facts of a body as it comes, or of what a packed one becomes. It refuses nothing. */
export interface FactsReader {
	/** Returns false once the facts are known to be unclear. */
	push(piece: Buffer): boolean;
	/**
	 * The facts, if all of them stand in what has come. What follows may still
	 * contradict them, which changes whose turn it is taken for and nothing else.
	 */
	readonly early: Facts | undefined;
	/** What is known without the rest of the body. */
	readonly soFar: Facts;
	/** Of the body, which is whole now: as they were known early, if they were. */
	finish(): Facts;
}

/** Whether when a request goes to Ollama, or to which host, depends on what is in its body. */
export function goesByBody(
	{ queue, pool }: Pick<GateState, "queue" | "pool">,
	{ scope, path }: Route,
): boolean {
	if (scope === "infer") return queue !== undefined || pool !== undefined;
	return path === "/api/show" && pool !== undefined;
}

const watched = new WatchList({ fields: ["model", "stream"] });
export const unclear: Facts = { model: undefined, isStream: false };
/** Their replies are streams unless the body says otherwise; all others are if it says so. */
const streamUnasked = new Set(["/api/generate", "/api/chat"]);

/** For bodies that are there whole: one is judged before the next is read. */
const wholeScan = new BodyScan(watched, false);

/** The facts of a body that is there whole. */
export function factsOfWhole(route: Route, head: Head, body: Buffer): Facts {
	if (route.path !== multipartRoute)
		return judge(wholeScan.readWhole(body), route);
	const reader = readFacts(route, head);
	reader.push(body);
	return reader.finish();
}

function judge(result: ScanResult, route: Route): Facts {
	return result.kind === "unclear" ? unclear : factsOf(result.fields, route);
}

/** Reads the facts of a body that comes in pieces. */
export function readFacts(route: Route, head: Head): FactsReader {
	if (route.path === multipartRoute) return readForm(head.contentType[0]);
	const scan = new BodyScan(watched, false);
	const early = () => {
		const { fields } = scan;
		return fields.has("model") && fields.has("stream")
			? factsOf(fields, route)
			: undefined;
	};
	return {
		push: (piece) => scan.push(piece),
		get early() {
			return early();
		},
		get soFar() {
			const { fields } = scan;
			return fields.has("model") ? factsOf(fields, route) : unclear;
		},
		finish: () => early() ?? judge(scan.finish(), route),
	};
}

/** Where not all of its bytes are characters, Ollama might read another. */
function isName(model: Scalar | undefined): model is string {
	return typeof model === "string" && !model.includes("\ufffd");
}

function factsOf(fields: Fields, { path }: Route): Facts {
	const model = fields.get("model");
	const stream = fields.get("stream");
	return {
		model: isName(model) ? model : fields.has("model") ? undefined : "",
		isStream: typeof stream === "boolean" ? stream : streamUnasked.has(path),
	};
}

function readForm(contentType: string | undefined): FactsReader {
	const scan = new FormScan(contentType);
	return {
		push: (piece) => scan.push(piece),
		early: undefined,
		soFar: unclear,
		finish() {
			const form = scan.finish();
			return form.kind === "unclear"
				? unclear
				: { model: form.value, isStream: false };
		},
	};
}
