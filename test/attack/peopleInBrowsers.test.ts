import t from "tap";
import { openBrowser } from "../support/browser.ts";
import { startLocalApi, whoIsNode } from "../support/localApi.ts";
import {
	addresses,
	gateV4,
	joinTailnet,
	linesOf,
	makeNamespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { requireTool } from "../support/tools.ts";

const gate = `http://${gateV4}`;

/** The ways of a page to have a browser send something elsewhere, each to another call. */
const page = `<!doctype html>
<iframe name="sink"></iframe><iframe name="sink2"></iframe><iframe name="sink3"></iframe>
<form id="plain" method="post" enctype="text/plain" target="sink" action="${gate}/api/chat">
<input name='{"model":"qwen3:8b","messages":[],"a":"' value='"}'></form>
<form id="silent" method="post" target="sink2" action="${gate}/api/generate"><input name="model" value="a"></form>
<form id="redirected" method="post" target="sink3" action="/elsewhere"><input name="model" value="a"></form>
<a id="ping" href="#here" ping="${gate}/v1/completions">a</a>
<img src="${gate}/api/tags" referrerpolicy="no-referrer">
<script src="${gate}/api/ps"></script>
<link rel="stylesheet" href="${gate}/api/version">
<script>
const body = '{"model":"qwen3:8b","messages":[]}';
const post = { method: "POST", mode: "no-cors", body };
const tries = [
	fetch("${gate}/api/embed", post),
	fetch("${gate}/api/embeddings", { ...post, referrerPolicy: "no-referrer", credentials: "omit" }),
	fetch("${gate}/v1/chat/completions", { ...post, keepalive: true }),
	fetch("${gate}/v1/embeddings", { method: "POST", body }),
	fetch("${gate}/v1/messages", { method: "POST", body, headers: { "content-type": "application/json" } }),
	fetch("${gate}/api/delete", { method: "DELETE", body }),
	fetch("${gate}/api/tags").then((reply) => reply.text()).then((text) => { window.stolen = text; }),
];
navigator.sendBeacon("${gate}/v1/responses", body);
new WebSocket("ws://${gateV4}/api/tags");
new EventSource("${gate}/api/tags");
plain.submit();
silent.submit();
redirected.submit();
document.getElementById("ping").click();
window.done = Promise.allSettled(tries);
</script>`;

/** Serves it, sends its posts on, and has the browser report what its policy forbids. */
const server = `
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("referrer-policy", "no-referrer")
        self.send_header("content-security-policy-report-only", "img-src 'none'; report-uri ${gate}/api/show")
        self.end_headers()
        self.wfile.write(PAGE)
    def do_POST(self):
        self.send_response(307)
        self.send_header("location", "${gate}/api/pull")
        self.end_headers()
    def log_message(self, *args):
        pass
import sys
PAGE = sys.argv[1].encode()
listening = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Page)
print("ready", flush=True)
listening.serve_forever()
`;

t.test(
	"whatever a page has the browser of such a device send, it infers and changes nothing, and it reads nothing",
	network(),
	async (t) => {
		if (!requireTool(t, "chromium")) return;
		const host = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(host, peer);
		const ollama = await startStandInProcess(host);
		const api = await startLocalApi(t);
		const peers = [addresses.peer.v4, addresses.peer.v6];
		const own = [addresses.server.v4, addresses.server.v6];
		for (const address of peers)
			api.nodes.set(address, whoIsNode({ addresses: peers }));
		for (const address of own)
			api.nodes.set(address, whoIsNode({ name: "server", addresses: own }));
		const { log } = await startDaemon(t, host, {
			identity: {
				mode: "login",
				socket: api.socket,
				rules: [
					{ users: ["me@example.com"], scopes: ["read", "infer", "manage"] },
				],
			},
		});
		await log.seen(({ msg }) => msg === "started");
		const web = peer.start("python3", "-c", server, page);
		await linesOf(web, String).seen((line) => line === "ready");

		const tab = await openBrowser(t, ["ip", "netns", "exec", peer.name]);
		await tab.open("http://127.0.0.1:8000/", { width: 800, scheme: "light" });
		await tab.evaluate("window.done.then(() => true)");
		// What came at all; a preflight that is refused is the end of it.
		for (const route of [
			...["chat", "generate", "embed", "embeddings", "show", "pull"].map(
				(name) => `POST /api/${name}`,
			),
			...["completions", "chat/completions", "embeddings", "responses"].map(
				(name) => `POST /v1/${name}`,
			),
		])
			t.match(
				await log.seen((line) => line.route === route),
				{ status: 401, reason: "no_key" },
				route,
			);
		t.equal(await tab.evaluate("typeof window.stolen"), "undefined");
		t.strictSame(
			ollama.calls().filter((call) => !call.startsWith("GET ")),
			[],
		);
		t.ok(
			ollama.calls().includes("GET /api/tags"),
			"an image alone is asked for",
		);
	},
);
