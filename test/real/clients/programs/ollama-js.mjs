// What a person writes with the package ollama: one chat, or a stream that is left half way.
import { Ollama } from "ollama";

const { SERVER, KEY, MODEL, TASK } = process.env;
const ollama = new Ollama({
	host: SERVER,
	headers: { Authorization: `Bearer ${KEY}` },
});
const messages = [{ role: "user", content: "Hello!" }];
try {
	if (TASK === "abort") {
		const stream = await ollama.chat({ model: MODEL, messages, stream: true });
		for await (const part of stream) {
			console.log(part.message.content);
			stream.abort();
		}
	} else {
		const { message } = await ollama.chat({ model: MODEL, messages });
		console.log(message.content);
	}
} catch (error) {
	console.error(`${error.name}: ${error.message}`);
	process.exitCode = 1;
}
