import { hostname } from "node:os";
import { head, openRaw } from "../../support/raw.ts";
import type { Group } from "../contract.ts";

/** Which Host and which Origin is let in. */
export const hosts: Group = {
	cases: {
		"a local Host is let in": async (t, ollama) => {
			for (const host of [
				...["127.0.0.1", "127.0.0.1:1", "127.9.9.9", "0.0.0.0", "10.1.2.3"],
				...["192.168.0.1", "172.16.0.1", "[::1]:1", "::1", "[fd00::1]:1"],
				...["localhost", "LOCALHOST:9", "a.localhost", "a.local"],
				...["a.internal", ":11434", hostname(), hostname().toUpperCase()],
			])
				t.equal(
					(await ollama.ask("GET", "/api/version", undefined, { host })).status,
					200,
					host,
				);
		},
		"any other Host is 403 without a word": async (t, ollama) => {
			for (const host of [
				...["gpu-box", "a.lan", "a.localdomain", "local", "localhost."],
				...["a.local.", "a.ts.net", "evil.example", "100.64.0.1", "8.8.8.8"],
				...["169.254.1.1", "[::1]", "[fe80::1]:1"],
			])
				for (const path of ["/api/version", "/api/nope"]) {
					const reply = await ollama.ask("GET", path, undefined, { host });
					t.match(
						reply,
						{ status: 403, text: "", headers: { "content-length": "0" } },
						`${host} ${path}`,
					);
				}
		},
		"an empty Host is let in, none is 400": async (t, ollama) => {
			for (const [lines, status] of [
				[["Host: "], 200],
				[[], 400],
			] as const) {
				const client = await openRaw(ollama.port);
				client.write(
					head("GET /api/version HTTP/1.1", ...lines, "Connection: close"),
				);
				await client.closed;
				t.match(client.text(), new RegExp(`^HTTP/1\\.1 ${status} `));
			}
		},
		"pages of this host are let in, and told so": async (t, ollama) => {
			for (const origin of [
				...["http://localhost", "https://localhost:3", "http://127.0.0.1:5"],
				...["http://0.0.0.0", "http://localhost:x", "app://x", "file://"],
				...["tauri://localhost", "vscode-webview://a", "vscode-file://a"],
			])
				t.match(
					await ollama.ask("GET", "/api/version", undefined, { origin }),
					{
						status: 200,
						headers: {
							"access-control-allow-origin": origin,
							vary: "Origin",
						},
					},
					origin,
				);
		},
		"any other page is 403 without a word": async (t, ollama) => {
			for (const origin of [
				...["null", "chrome-extension://abc", "moz-extension://abc"],
				...["https://a.ts.net", "http://[::1]", "HTTP://LOCALHOST"],
				"http://localhost.evil.example",
			])
				t.match(
					await ollama.ask("GET", "/api/version", undefined, { origin }),
					{ status: 403, text: "" },
					origin,
				);
		},
		"a page of the same host and port is no foreign one": async (t, ollama) => {
			const reply = await ollama.ask("GET", "/api/version", undefined, {
				origin: `http://127.0.0.1:${ollama.port}`,
			});
			t.equal(reply.status, 200);
			t.equal(reply.headers["access-control-allow-origin"], undefined);
		},
		"a preflight is 204 for an allowed Origin, and for a Host that is a local name":
			async (t, ollama) => {
				const preflight = (headers: Record<string, string>) =>
					ollama.ask("OPTIONS", "/api/chat", undefined, headers);
				t.match(await preflight({ origin: "http://localhost" }), {
					status: 204,
					headers: {
						"access-control-allow-origin": "http://localhost",
						"access-control-allow-methods":
							"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
						"access-control-allow-headers": /^Authorization,Content-Type,/,
						"access-control-max-age": "43200",
					},
				});
				t.equal((await preflight({ host: "localhost" })).status, 204);
				t.equal((await preflight({})).status, 405);
				t.match(await preflight({ origin: "https://evil.example" }), {
					status: 403,
					text: "",
				});
			},
		"HTTP/2 is not spoken": async (t, ollama) => {
			const client = await openRaw(ollama.port);
			client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
			await client.until((text) => text.includes("\r\n\r\n"));
			t.match(client.text(), /^HTTP\/1\.1 400 /);
			client.destroy();
			const upgrade = await openRaw(ollama.port);
			upgrade.write(
				head(
					"GET /api/version HTTP/1.1",
					"Host: 127.0.0.1",
					"Connection: Upgrade, HTTP2-Settings",
					"Upgrade: h2c",
					"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
				),
			);
			const [reply] = await upgrade.untilReplies(1);
			t.match(reply, { status: 200, body: /"version"/ });
			upgrade.destroy();
		},
	},
};
