import { type Client, greeting, json } from "./client.ts";

export const nodeRed: Client = {
	name: "node-red",
	title: "Node-RED",
	source: "from the documentation of the http request node; not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "An http request node:",
					language: "text",
					text: `Method           POST
URL              ${server}/api/generate
Use authentication   bearer authentication
Token            ${key}
Return           a parsed JSON object`,
				},
				{
					lead: "What goes into msg.payload before it:",
					language: "json",
					text: json({ model, prompt: greeting, stream: false }),
				},
			],
			notes: [
				"Node-RED keeps the token with its credentials, not in the flow that is exported. The answer is in msg.payload.response. The node waits two minutes; a model that takes longer to load needs msg.requestTimeout, in milliseconds.",
			],
		};
	},
};
