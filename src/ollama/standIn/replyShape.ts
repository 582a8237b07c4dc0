/** What a call asks the stand-in to generate. */
export interface Generation {
	readonly model: string;
	readonly tokens: readonly string[];
	/** Whether it ended where the request said, and not by itself. */
	readonly isCut: boolean;
	/** When the request arrived, and when its model was there, on performance.now()'s clock. */
	readonly startedAtMs: number;
	readonly loadedAtMs: number;
	/** Whether the model has just read the same prompt, and remembers all but its end. */
	readonly isRepeated: boolean;
	/** What a reply repeats of its request. */
	readonly request: Readonly<Record<string, unknown>>;
}

/** How one kind of call is answered: what surrounds each token, and the whole when it does not stream. */
export interface ReplyShape {
	readonly contentType: string;
	/** What else is in the head of a stream. */
	readonly headers?: Readonly<Record<string, string>>;
	readonly wholeContentType: string;
	begin?(generation: Generation): string;
	token(generation: Generation, token: string, index: number): string;
	end(generation: Generation): string;
	/** What is said of a runner that died in the middle; the stream ends cleanly behind it. */
	died(generation: Generation): string;
	whole(generation: Generation): unknown;
}

export const promptTokens = 26;
/** Those that the model has read before. The last one is always read anew. */
export const cachedTokens = ({ isRepeated }: Generation) =>
	isRepeated ? promptTokens - 1 : 0;

export const line = (value: unknown) => `${JSON.stringify(value)}\n`;
export const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
export const event = (type: string, value: object) =>
	`event: ${type}\ndata: ${JSON.stringify({ type, ...value })}\n\n`;
export const createdAt = () => new Date().toISOString();
export const text = ({ tokens }: Generation) => tokens.join("");

export const reason = ({ isCut }: Generation) => (isCut ? "length" : "stop");
export const message = (content: string) => ({
	message: { role: "assistant", content },
});
