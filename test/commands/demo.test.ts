import { once } from "node:events";
import t from "tap";
import { eventually, node } from "../support/gate.ts";
import { makeNamespace, network } from "../support/namespaces.ts";

/** What takes Ollama's port, and is none. */
const impostor = `
require("node:http").createServer((req, res) => res.end(JSON.stringify(
	req.url === "/api/version"
		? { version: "0.35.0\\u001b[2J" }
		: { models: [{ name: "a'; touch /tmp/owned; '" }, { name: "\\u001b[2J" }, { name: "llama3.2:3b" }] },
))).listen(11434, "127.0.0.1", () => console.log("listening"));
`;

t.test(
	"what listens on Ollama's port puts nothing but a name into the demo's commands",
	network(),
	async (t) => {
		const host = await makeNamespace(t);
		const other = host.start(process.execPath, "--eval", impostor);
		await once(other.stdout, "data");
		const demo = host.start(...node, "src/main.ts", "demo", "--port", "0");
		let out = "";
		demo.stdout.on("data", (text: string) => {
			out += text;
		});
		await eventually(() => out.includes("Ctrl-C stops"));
		t.match(out, /in front of the Ollama 0\.35\.0\[2J on this machine/);
		t.match(out, /-d '\{"model":"llama3\.2:3b","prompt":"Hello!"\}'/);
		t.notMatch(out, /touch/);
		t.notOk(out.includes("\u001b"));
		demo.kill("SIGINT");
		await once(demo, "close");
	},
);
