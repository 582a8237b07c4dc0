// What a person writes with the package openai: one chat, or a stream that is left half way.
import OpenAI from "openai";

const { SERVER, KEY, MODEL, TASK } = process.env;
const openai = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: KEY });
const messages = [{ role: "user", content: "Hello!" }];
try {
	if (TASK === "abort") {
		const stream = await openai.chat.completions.create({
			model: MODEL,
			messages,
			stream: true,
		});
		for await (const chunk of stream) {
			console.log(chunk.choices[0]?.delta.content ?? "");
			stream.controller.abort();
		}
	} else {
		const { choices } = await openai.chat.completions.create({
			model: MODEL,
			messages,
		});
		console.log(choices[0]?.message.content);
	}
} catch (error) {
	console.error(`${error.constructor.name}: ${error.message}`);
	process.exitCode = 1;
}
