/** Streams that have a mark of their own at their end. */
export const nativeStreams = new Set(["/api/generate", "/api/chat"]);
export const openaiStreams = new Set([
	"/v1/chat/completions",
	"/v1/completions",
]);
/** The events that end a stream, and whether it has failed then. */
export const lastEvents = new Map([
	[
		"/v1/messages",
		new Map([
			["message_stop", false],
			["error", true],
		]),
	],
	[
		"/v1/responses",
		new Map([
			["response.completed", false],
			["response.incomplete", false],
			["response.failed", true],
			["error", true],
		]),
	],
]);
