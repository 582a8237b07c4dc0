import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { routes } from "../../src/ollama/routes.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import {
	checkGate,
	checkWays,
	type GateQuestion,
} from "../../src/probe/gate.ts";
import { wayTo } from "../../src/probe/place.ts";
import type { Result } from "../../src/report/result.ts";
import { startGate, testEntries, testKeys } from "../support/gate.ts";
import { startMiddleman } from "./middlemen.ts";

/** Probes and sorts the results by the last part of their ids. */
async function probe(
	origin: string,
	key: string | undefined,
	more: Partial<GateQuestion> = {},
): Promise<Record<string, Result>> {
	const { results } = await checkGate(
		{
			...{ origin, key, model: undefined, waitMs: 60_000, lockout: false },
			...more,
		},
		() => {},
	);
	return byId(results);
}

function byId(results: readonly Result[]): Record<string, Result> {
	return Object.fromEntries(
		results.map((result) => [result.id.replace("probe.", ""), result]),
	);
}

/** The ids in each state. */
function states(results: Record<string, Result>, state: Result["state"]) {
	return Object.entries(results)
		.filter(([, result]) => result.state === state)
		.map(([id]) => id);
}

const withKey = ["key-accepted", "scopes", "reads", "routes", "error-shapes"];
const withStream = ["stream", "uncollected", "after-leaving", "cancel"];
const withoutKey = [
	...["no-key", "unknown-paths", "challenge", "refusal-shape"],
	"wrong-key",
];

t.test("a real gate passes, and each check says what was seen", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 20 } });
	const results = await probe(gate.url, testKeys.user);
	t.strictSame(
		states(results, "ok").toSorted(),
		[
			"encrypted",
			"reachable",
			...withKey,
			...withStream,
			...withoutKey,
		].toSorted(),
	);
	t.strictSame(states(results, "finding"), ["elsewhere"]);
	for (const { evidence } of Object.values(results))
		t.ok(evidence.length > 0 && evidence.every((line) => line !== ""));
	t.match(results["no-key"]?.evidence[0], `${routes.length} calls`);
	t.match(results.reads?.evidence[0], /Ollama 0\.35\.0, 3 models/);
	t.notOk(JSON.stringify(results).includes(testKeys.user));
});

t.test(
	"no call that could change something is made with the key",
	async (t) => {
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
		await probe(gate.url, testKeys.owner);
		const scopeOf = new Map(routes.map(({ id, scope }) => [id, scope]));
		const made = gate.log.filter(
			({ msg, key }) => msg === "request" && key !== null,
		);
		t.ok(made.length > 10);
		for (const { route } of made)
			t.ok(
				route === null ||
					["read", "infer"].includes(String(scopeOf.get(String(route)))),
				String(route),
			);
		for (const { method, target } of gate.standIn.calls)
			t.notMatch(
				`${method} ${target}`,
				/DELETE|pull|push|create|copy|blobs|signout|\/me$/,
			);
	},
);

t.test("a bare Ollama is critical, and nothing of it is touched", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const results = await probe(standIn.url, testKeys.owner);
	t.match(results["no-key"], { state: "finding", severity: "critical" });
	t.match(results.reachable, {
		state: "finding",
		evidence: [/Ollama 0\.35\.0 answers without a key/],
	});
	t.match(results["unknown-paths"], { state: "finding" });
	t.strictSame(states(results, "unknown"), [
		"challenge",
		"refusal-shape",
		"wrong-key",
		...withKey,
		...withStream,
	]);
	for (const { method, target, headers } of standIn.calls) {
		t.notMatch(
			`${method} ${target}`,
			/DELETE|pull|push|create|copy|blobs|signout|\/me$|user/,
		);
		t.equal(headers.authorization, undefined);
	}
});

t.test("Open WebUI is not taken for Ollama, nor knocked at", async (t) => {
	const asked: (string | undefined)[] = [];
	const url = await startMiddleman(t, "http://127.0.0.1:1", {
		answers: (req, res) => {
			asked.push(req.url);
			if (req.url === "/api/version") res.end('{"version":"0.6.5"}');
			else res.end("<!doctype html><title>Open WebUI</title>");
			return true;
		},
	});
	const results = await probe(url, testKeys.user);
	t.match(results.reachable, {
		state: "finding",
		evidence: [/200/, /neither a gate nor Ollama/],
	});
	t.match(results["no-key"], { state: "unknown" });
	t.strictSame(asked, ["/api/version", "/", "/api/codex/_health"]);
});

t.test(
	"an Ollama on loopback that others are led to is critical",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		// As a peer calls it: by a name that Ollama's check of the Host header refuses.
		const { results } = await checkWays(
			{
				origin: standIn.url.replace("127.0.0.1", "gpu-box"),
				key: testKeys.user,
				...{ model: undefined, waitMs: 60_000, lockout: false },
			},
			[await wayTo("127.0.0.1")],
			() => {},
		);
		const seen = byId(results);
		t.match(seen.reachable, {
			state: "finding",
			evidence: [
				/Ollama 0\.35\.0 answers without a key/,
				/leads others to it: tailscaled without a tunnel device/,
			],
			fix: /llamagate doctor/,
		});
		t.match(seen["no-key"], { state: "finding", severity: "critical" });
		for (const { headers } of standIn.calls)
			t.equal(headers.authorization, undefined);
	},
);

t.test("an Ollama with a page in front is known by its health", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const withPage = (health: string) =>
		startMiddleman(t, standIn.url, {
			answers: (req, res) => {
				if (req.url === "/api/codex/_health") res.end(health);
				else if (req.url === "/") res.end("<title>a page</title>");
				else return false;
				return true;
			},
		});
	const bare = await probe(await withPage('{"ok":true}'), testKeys.user);
	t.match(bare["no-key"], { state: "finding", severity: "critical" });
	const other = await probe(await withPage("<title>a page</title>"), undefined);
	t.match(other.reachable?.evidence, [/200/, /neither a gate nor Ollama/]);
});

t.test("of a port at which nothing listens nothing is known", async (t) => {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address() as AddressInfo;
	await new Promise((resolve) => server.close(resolve));
	for (const scheme of ["http", "https"]) {
		const results = await probe(`${scheme}://127.0.0.1:${port}`, testKeys.user);
		t.match(results.reachable, { state: "finding" });
		t.match(results.encrypted, {
			state: "unknown",
			evidence: [/did not answer \(ECONNREFUSED\)/],
		});
		t.strictSame(states(results, "ok"), []);
	}
});

t.test(
	"a proxy that only asks whether there is a key is critical, and gets none",
	async (t) => {
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const shown: (string | undefined)[] = [];
		const url = await startMiddleman(t, standIn.url, {
			answers: ({ headers: { authorization } }, res) => {
				shown.push(authorization);
				if (authorization !== undefined) return false;
				res.writeHead(401, {
					"www-authenticate": "Bearer",
					"content-type": "application/json",
				});
				res.end('{"error":"a key is missing"}');
				return true;
			},
		});
		const results = await probe(url, testKeys.owner);
		t.match(results["wrong-key"], { state: "finding", severity: "critical" });
		t.match(results["key-accepted"], { state: "unknown" });
		t.notOk(shown.some((value) => value?.includes(testKeys.owner)));
	},
);

t.test(
	"each address of a name is knocked at, and the key goes to one alone",
	async (t) => {
		if (process.platform !== "linux")
			return t.comment("127.0.0.2 is an address on Linux alone");
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
		const open = await startStandIn({ host: "127.0.0.2", port: gate.port });
		t.teardown(() => open.close());
		const ways = await Promise.all(
			["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(wayTo),
		);
		const question = {
			...{ key: testKeys.user, model: undefined, waitMs: 60_000 },
			...{ origin: `http://gate.localhost:${gate.port}`, lockout: false },
		};
		const both = await checkWays(question, ways, () => {});
		const seen = byId(both.results);
		t.match(seen["no-key"], {
			state: "finding",
			evidence: [/^127\.0\.0\.2: \d+ of \d+ calls were not refused/],
		});
		t.equal(
			seen["no-key"]?.evidence.at(-1),
			`127.0.0.1: ${routes.length} calls, each refused with 401`,
		);
		t.match(seen.reachable, {
			state: "finding",
			evidence: [
				/\(127\.0\.0\.2\): Ollama/,
				/\(127\.0\.0\.1\)$/,
				/127\.0\.0\.3/,
			],
		});
		t.match(seen.stream, { state: "ok" });
		for (const { headers } of open.calls)
			t.equal(headers.authorization, undefined);

		// The order of the addresses decides nothing about what is found.
		const other = await checkWays(question, ways.toReversed(), () => {});
		t.match(byId(other.results)["no-key"], { state: "finding" });
		for (const { headers } of open.calls)
			t.equal(headers.authorization, undefined);

		await open.close();
		const shut = await checkWays(question, ways, () => {});
		t.match(byId(shut.results).reachable, {
			state: "ok",
			evidence: [
				/\(127\.0\.0\.1\)$/,
				"nothing listens at 127.0.0.2",
				"nothing listens at 127.0.0.3",
			],
		});
		t.match(byId(shut.results)["no-key"], { state: "ok" });
	},
);

t.test("a call that is refused in spite of a good key is found", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
	const url = await startMiddleman(t, gate.url, {
		answers: ({ url, headers: { authorization } }, res) => {
			if (url !== "/v1/messages" || authorization === undefined) return false;
			res.writeHead(401).end();
			return true;
		},
	});
	const results = await probe(url, testKeys.user);
	t.match(results.routes, {
		state: "finding",
		evidence: [/^1 of \d+ calls/, "POST /v1/messages: 401"],
	});
});

t.test(
	"one path that a proxy lets through without a key is critical",
	async (t) => {
		const gate = await startGate(t);
		for (const open of ["/v1/embeddings", "/api/ps"]) {
			const url = await startMiddleman(t, gate.url, {
				answers: (req, res) => {
					if (req.url !== open) return false;
					res.end('{"models":[]}');
					return true;
				},
			});
			const results = await probe(url, undefined);
			t.match(results["no-key"], {
				state: "finding",
				evidence: [
					/^1 of \d+ calls/,
					`${open}: 200 in place of 401`,
					/12 calls/,
				],
			});
		}
		const results = await probe(await startMiddleman(t, gate.url), undefined);
		t.match(results["no-key"], { state: "ok" });
	},
);

t.test(
	"a call that is let through without a key is found, whether or not its body ends",
	async (t) => {
		const gate = await startGate(t);
		for (const [end, name] of [
			[(res: ServerResponse) => res.write("x", () => res.destroy()), "cut"],
			[(res: ServerResponse) => res.end("x".repeat(5 * 2 ** 20)), "too long"],
		] as const) {
			const url = await startMiddleman(t, gate.url, {
				answers: (req, res) => {
					if (req.url !== "/api/ps") return false;
					end(res);
					return true;
				},
			});
			t.match(
				(await probe(url, undefined))["no-key"],
				{
					state: "finding",
					evidence: [/^1 of \d+ calls/, "GET /api/ps: 200 in place of 401"],
				},
				name,
			);
		}
	},
);

t.test("a call that was lost is not taken for an open one", async (t) => {
	const gate = await startGate(t);
	const asked: (string | undefined)[] = [];
	const url = await startMiddleman(t, gate.url, {
		answers: (req) => {
			asked.push(req.url);
			if (req.url !== "/v1/embeddings") return false;
			req.socket.destroy();
			return true;
		},
	});
	const found = (await probe(url, undefined))["no-key"];
	t.match(found, { state: "unknown", evidence: [/^1 of \d+ calls/] });
	t.notMatch(found?.evidence.join("\n"), /nobody guards here/);
	t.ok(asked.includes("/api/pull"));
});

t.test(
	"a call that manages models and is open to all is found, and asks for nothing",
	async (t) => {
		const gate = await startGate(t);
		const standIn = await startStandIn();
		t.teardown(() => standIn.close());
		const open = await startMiddleman(t, standIn.url);
		const { port } = new URL(open);
		const url = await startMiddleman(t, gate.url, {
			answers: (req, res) => {
				if (req.url !== "/api/pull") return false;
				// To Ollama itself, as a wrong rule in a proxy would.
				void fetch(`http://127.0.0.1:${port}/api/pull`, {
					method: "POST",
					headers: req.headers.origin ? { origin: req.headers.origin } : {},
					body: "{}",
				}).then(async (reply) => {
					res.statusCode = reply.status;
					res.end(await reply.text());
				});
				return true;
			},
		});
		const results = await probe(url, undefined);
		t.match(results["no-key"], {
			state: "finding",
			evidence: [/^1 of/, "POST /api/pull: 403 in place of 401"],
		});
	},
);

t.test("a proxy that cleans paths is found", async (t) => {
	const gate = await startGate(t);
	const url = await startMiddleman(t, gate.url, {
		answers: (req, res) => {
			if (!/\/\/|\/\.\/|%/.test(req.url ?? "")) return false;
			res.writeHead(301, { location: "/api/tags" });
			res.end();
			return true;
		},
	});
	const results = await probe(url, undefined);
	t.match(results["no-key"], { state: "ok" });
	t.match(results["unknown-paths"], {
		state: "finding",
		severity: "high",
		evidence: ["GET /api/%74ags: 301 in place of 401"],
	});
});

t.test("a proxy that strips WWW-Authenticate is found", async (t) => {
	const gate = await startGate(t);
	const url = await startMiddleman(t, gate.url, {
		head: (headers) => {
			delete headers["www-authenticate"];
		},
	});
	const results = await probe(url, testKeys.reader);
	t.match(results.challenge, { state: "finding", severity: "warn" });
	t.match(results.reachable, {
		state: "ok",
		evidence: [String, "it does not call itself llamagate"],
	});
	t.strictSame(states(results, "finding"), [
		"elsewhere",
		"challenge",
		"scopes",
	]);
});

t.test(
	"error pages of a proxy's own are found, with the key and without",
	async (t) => {
		const gate = await startGate(t);
		const page = "<html>\n<h1>Error</h1>\n</html>";
		for (const body of [page, "", '{"error":"x"}', '{\n"error":"x"\n}']) {
			const url = await startMiddleman(t, gate.url, { errorPage: body });
			const results = await probe(url, testKeys.reader);
			t.match(results["refusal-shape"], { state: "finding" }, body);
			t.match(results["error-shapes"], { state: "finding" }, body);
			t.match(results["no-key"], { state: "ok" });
		}
	},
);

t.test("what a key may not do is told from the gate's answers", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
	const reader = await probe(gate.url, testKeys.reader);
	t.match(reader.scopes, {
		state: "finding",
		severity: "info",
		evidence: ["it may not infer; the gate says that it has: read"],
	});
	t.match(reader["key-accepted"], { state: "ok" });
	t.match(reader.reads, { state: "ok" });
	t.match(reader["error-shapes"], { state: "ok" });
	t.strictSame(states(reader, "unknown"), withStream);
	t.match(reader.stream, { evidence: ["the key may not infer"] });

	const worker = await probe(gate.url, testKeys.worker);
	t.match(worker.scopes, { evidence: [/^it may not read;/] });
	t.match(worker.reads, { state: "absent" });
	t.match(worker.stream, { state: "unknown", evidence: [/--model/] });
	const named = await probe(gate.url, testKeys.worker, { model: "qwen3:8b" });
	t.match(named.stream, { state: "ok" });
	t.match(named["after-leaving"], { state: "ok" });
});

t.test("what a key may do is told by refusals alone", async (t) => {
	const gate = await startGate(t);
	const long = `needs the scope read; it has ${"read, ".repeat(300)}read`;
	for (const [path, status, error] of [
		["/api/embed", 400, "needs the scope infer; it has manage"],
		["/api/tags", 403, long],
	] as const) {
		const url = await startMiddleman(t, gate.url, {
			answers: (req, res) => {
				const { url, headers } = req;
				if (headers.authorization === undefined) return false;
				if (url !== "/api/tags" && url !== path) return false;
				res.statusCode = url === path ? status : 403;
				res.end(
					JSON.stringify({
						error: url === path ? error : "needs the scope read",
					}),
				);
				return true;
			},
		});
		t.strictSame((await probe(url, testKeys.worker)).scopes?.evidence, [
			"it may not read",
		]);
	}
});

t.test("a key that has run out is told apart from a wrong one", async (t) => {
	const [first] = testEntries;
	if (first === undefined) throw new Error("there are no keys");
	const gate = await startGate(t, {
		keys: [{ ...first, expires: "2020-01-01T00:00:00Z" }],
	});
	const expired = await probe(gate.url, testKeys.user);
	t.match(expired["key-accepted"], {
		state: "finding",
		severity: "high",
		evidence: [/403, "the key "user" expired on 2020/],
		fix: /keys rotate/,
	});
	const wrong = await probe(gate.url, testKeys.wrong);
	t.match(wrong["key-accepted"], {
		state: "finding",
		evidence: [/401, "this key is not known here"/],
		fix: /keys list/,
	});
	t.strictSame(states(wrong, "unknown"), [...withKey.slice(1), ...withStream]);
	// The one that each made up, and the wrong one: more would lock the device out.
	t.equal(gate.log.filter(({ event }) => event === "auth_failed").length, 3);
});

t.test("an Ollama that is down behind the gate is found", async (t) => {
	const gate = await startGate(t);
	await gate.standIn.close();
	const results = await probe(gate.url, testKeys.user);
	t.match(results["key-accepted"], { state: "ok" });
	t.match(results.reads, { state: "finding", fix: /systemctl status ollama/ });
	t.match(results["no-key"], { state: "ok" });
});

t.test("a server that knows the key cannot have it shown", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
	const { user } = testKeys;
	const url = await startMiddleman(t, gate.url, {
		answers: (req, res) => {
			if (req.headers.authorization !== `Bearer ${user}`) return false;
			const answer = new Map<string, object>([
				// Cut off in its middle, a key is still half a key.
				["/api/version", { version: `${"x".repeat(170)}${user}` }],
				["/api/tags", { models: [{ name: user }] }],
				[`/v1/models/${user}`, { id: user }],
			]).get(req.url ?? "");
			if (answer !== undefined) res.end(JSON.stringify(answer));
			else if (req.url === "/api/chat")
				res.end(
					`${'{"message":{"content":"x"}}\n'.repeat(8)}{"message":{},"done":true}\n`,
				);
			else return false;
			return true;
		},
	});
	const question = { origin: url, key: user, model: undefined };
	const seen = await checkGate(
		{ ...question, waitMs: 60_000, lockout: false },
		(what) => t.notOk(what.includes(user), "the progress"),
	);
	t.equal(seen.timings?.model, "KEY");
	t.notOk(JSON.stringify(seen).includes(user.slice(0, 16)));
	const reads = byId(seen.results).reads?.evidence.join("\n");
	t.match(reads, /Ollama x+KEY/);
});

t.test("a connection that is lost is no finding", async (t) => {
	const gate = await startGate(t);
	for (const [losses, state] of [
		[1, "ok"],
		[9, "unknown"],
	] as const) {
		const left = new Map<string, number>([
			["/api/ps", losses],
			["/llamagate-probe", losses],
		]);
		const url = await startMiddleman(t, gate.url, {
			answers: (req) => {
				const path = req.url ?? "";
				const more = left.get(path) ?? 0;
				if (req.headers.authorization === undefined || more === 0) return false;
				left.set(path, more - 1);
				req.socket.resetAndDestroy();
				return true;
			},
		});
		const results = await probe(url, testKeys.reader);
		for (const id of ["reads", "error-shapes"])
			t.match(results[id], { state }, `${id} after ${losses}`);
	}
});

t.test(
	"the model to ask is one that runs here: loaded ones first, and others if it cannot chat",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				tokenIntervalMs: 10,
				models: [
					"big:cloud",
					"huge:120b-cloud",
					"a:1b",
					"b:1b",
					"c:1b",
					"d:1b",
				],
			},
		});
		const able = new Set<string>();
		const asked: string[] = [];
		const url = await startMiddleman(t, gate.url, {
			answers: (req, res) => {
				if (req.headers.authorization === undefined) return false;
				if (req.url === "/api/ps") {
					res.end('{"models":[{"name":"big:cloud"},{"name":"c:1b"}]}');
					return true;
				}
				if (req.url !== "/api/chat" || able.size > 0) return false;
				let body = "";
				req.setEncoding("utf8").on("data", (text: string) => {
					body += text;
				});
				req.once("end", () => {
					const { model } = JSON.parse(body) as { model?: string };
					if (model !== undefined) asked.push(model);
					res.statusCode = 400;
					res.end('{"error":"this model does not support chat"}');
				});
				return true;
			},
		});
		const none = await probe(url, testKeys.user);
		t.match(none.stream, { state: "finding", evidence: [/for b:1b: 400/] });
		t.strictSame(asked, ["c:1b", "a:1b", "b:1b"]);
		// A model that was named is the one.
		asked.length = 0;
		await probe(url, testKeys.user, { model: "d:1b" });
		t.strictSame(asked, ["d:1b"]);
		able.add("all");
		const some = await probe(url, testKeys.user);
		t.match(some.stream, { state: "ok", evidence: [/from c:1b$/] });
	},
);

t.test(
	"where no gate is, the key is not sent and nothing is called fine",
	async (t) => {
		const seen: string[] = [];
		const other = createServer((req, res) => {
			seen.push(String(req.headers.authorization));
			res.end("<html>welcome</html>");
		});
		await new Promise<void>((resolve) =>
			other.listen(0, "127.0.0.1", () => resolve()),
		);
		t.teardown(() => other.close());
		const { port } = other.address() as { port: number };
		const gone = createServer();
		await new Promise<void>((resolve) =>
			gone.listen(0, "127.0.0.1", () => resolve()),
		);
		const { port: free } = gone.address() as { port: number };
		await new Promise((resolve) => gone.close(resolve));
		for (const [origin, evidence] of [
			[`http://127.0.0.1:${port}`, /: 200/],
			[`http://127.0.0.1:${free}`, /ECONNREFUSED/],
			[`https://127.0.0.1:${port}`, /no answer/],
			["http://llamagate-probe.invalid:11434", /cannot be looked up/],
		] as const) {
			const results = await probe(origin, testKeys.user, { lockout: true });
			t.match(
				results.reachable,
				{ state: "finding", evidence: [evidence] },
				origin,
			);
			t.strictSame(
				states(results, "unknown")
					.filter((id) => id !== "elsewhere" && id !== "encrypted")
					.toSorted(),
				[...withoutKey, ...withKey, ...withStream, "lockout"].toSorted(),
			);
		}
		t.strictSame(new Set(seen), new Set(["undefined"]));
	},
);

t.test("a device that the gate does not listen to is told so", async (t) => {
	const gate = await startGate(t, {
		config: { sources: ["100.64.0.0/10"] },
	});
	const results = await probe(gate.url, testKeys.user);
	t.match(results.reachable, {
		state: "finding",
		fix: /over the tailnet/,
	});
	t.strictSame(states(results, "unknown"), [
		...withoutKey,
		...withKey,
		...withStream,
	]);
});

t.test(
	"what a server says cannot show the key, nor steer a terminal",
	async (t) => {
		const gate = await startGate(t);
		const url = await startMiddleman(t, gate.url, {
			answers: (req, res) => {
				if (req.headers.authorization === undefined) return false;
				res.statusCode = 403;
				res.end(
					JSON.stringify({
						error: `\u001b[2J${req.headers.authorization}${"x".repeat(1_000)}`,
					}),
				);
				return true;
			},
		});
		const results = await probe(url, testKeys.user);
		t.match(results["key-accepted"], {
			state: "finding",
			evidence: [/403, "\[2JBearer KEYx+…"$/],
		});
		const text = JSON.stringify(results);
		t.notOk(text.includes(testKeys.user));
		t.notOk(text.includes("\\u001b"));
		t.ok(text.length < 10_000);
	},
);
