import { type Client, greeting } from "./client.ts";

export const curl: Client = {
	name: "curl",
	title: "curl",
	source: "run in our tests",
	sendsKey: true,
	render({ server, key, model }) {
		const body = JSON.stringify({
			model,
			messages: [{ role: "user", content: greeting }],
		});
		// A header on the command line can be read by every user of the machine (ps).
		const header = `<<'END'\nAuthorization: Bearer ${key}\nEND`;
		return {
			snippets: [
				{
					lead: "A stream, one JSON line for each token:",
					language: "sh",
					text: `curl -N ${server}/api/chat -H @- -d '${body}' ${header}`,
				},
				{
					lead: "The models:",
					language: "sh",
					text: `curl ${server}/api/tags -H @- ${header}`,
				},
			],
			notes: [
				"-H @- reads the header from standard input, so that the key is not on the command line, where other users of this machine could see it. It needs curl 7.55 or newer.",
			],
		};
	},
};
