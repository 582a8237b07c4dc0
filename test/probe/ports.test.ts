import { createServer, request } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import t from "tap";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { knockAtAll } from "../../src/probe/ports.ts";
import { requireTool } from "../support/tools.ts";
import { makeAuthority } from "./authority.ts";
import { startMiddleman } from "./middlemen.ts";

/** Knocks at one port of this device, and asks for Ollama there. */
async function knockAt(port: number, language: "http" | "https" = "http") {
	const knocks = await knockAtAll(["127.0.0.1"], [port], {
		host: "box.example",
		language: () => language,
	});
	return knocks[0];
}

function portOf(url: string): number {
	return Number(new URL(url).port);
}

t.test(
	"Ollama is known by its own words, Open WebUI is not Ollama",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		t.match(await knockAt(portOf(await startMiddleman(t, standIn.url))), {
			state: "open",
			ollama: "0.35.0",
		});
		const webUi = await startMiddleman(t, standIn.url, {
			answers: (req, res) => {
				// As Open WebUI answers, without a login.
				if (req.url === "/api/version")
					res.end('{"version":"0.6.5","deployment_id":""}');
				else res.end("<!doctype html><title>Open WebUI</title>");
				return true;
			},
		});
		const seen = await knockAt(portOf(webUi));
		t.match(seen, { state: "open", other: "HTTP 200" });
		t.equal(seen?.ollama, undefined);
	},
);

t.test("an Ollama that wants a Host of its own is found", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	t.match(await knockAt(portOf(standIn.url)), { ollama: "0.35.0" });
	const guarded = await startMiddleman(t, standIn.url, {
		answers: (_req, res) => {
			res.writeHead(403).end();
			return true;
		},
	});
	t.match(await knockAt(portOf(guarded)), { other: "HTTP 403" });
});

t.test(
	"an Ollama behind a proxy for one name is found, also by HTTPS",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const names: (string | undefined)[] = [];
		const url = await startMiddleman(t, standIn.url, {
			answers: (req, res) => {
				names.push(req.headers.host);
				if (req.headers.host?.split(":")[0] === "box.example") return false;
				res.writeHead(404).end();
				return true;
			},
		});
		t.match(await knockAt(portOf(url)), { ollama: "0.35.0" });
		t.equal(names[0], `box.example:${portOf(url)}`);

		const authority = await makeAuthority(t);
		const secure = createTlsServer(
			// Whether the certificate is good does not matter to whoever comes for Ollama.
			await authority.selfSign("box.example"),
			(req, res) => {
				const { url: path, method, headers } = req;
				request(
					new URL(path ?? "/", url),
					{ method, headers: { ...headers } },
					(reply) => {
						res.writeHead(reply.statusCode ?? 500, reply.headers);
						reply.pipe(res);
					},
				).end();
			},
		);
		await new Promise<void>((resolve) =>
			secure.listen(0, "127.0.0.1", () => resolve()),
		);
		t.teardown(() => secure.close());
		const { port } = secure.address() as AddressInfo;
		t.match(await knockAt(port, "https"), { state: "open", ollama: "0.35.0" });
		// What speaks no TLS there is open all the same.
		t.match(await knockAt(portOf(url), "https"), { state: "open" });
	},
);

t.test("a port at which nothing says anything is open", async (t) => {
	const server = createServer((req) => req.socket.destroy());
	await new Promise<void>((resolve) =>
		server.listen(0, "127.0.0.1", () => resolve()),
	);
	const { port } = server.address() as AddressInfo;
	t.match(await knockAt(port), { state: "open" });
	await new Promise((resolve) => server.close(resolve));
	t.match(await knockAt(port), { state: "closed", code: "ECONNREFUSED" });
});
