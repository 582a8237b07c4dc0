import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import t from "tap";
import { createDashboard } from "../../src/dashboard/server.ts";
import type { Watch } from "../../src/dashboard/snapshot.ts";
import { keepResult } from "../../src/doctor/lastResult.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { LedgerClient } from "../../src/ledger/client.ts";
import { toJson } from "../../src/report/json.ts";
import {
	ask,
	idleLive,
	openViewer,
	runningRequest,
	startDashboard,
	startFakeGate,
} from "../support/dashboard.ts";
import {
	hostileHost,
	hostileTexts,
	openHost,
} from "../support/exampleResults.ts";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import {
	collectedLog,
	ledgerPlace,
	recordOf,
	spawnLedger,
} from "../support/ledger.ts";

const textOf = async (url: string) => (await fetch(url)).text();

/** The page once the ledger has answered, for which no look waits. */
async function textWithShares(url: string): Promise<string> {
	let text = "";
	await eventually(async () => {
		text = await textOf(url);
		return !text.includes("has not answered yet");
	});
	return text;
}

t.test(
	"the page has who works and who waits, before any script runs",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "laptop",
					sha256: digestOf(testKeys.user),
					budget: { gpu: "2h", requests: 8, per: "week" },
				},
				{ name: "phone", sha256: digestOf(testKeys.worker) },
			],
			standIn: { parallel: 1, misbehave: () => "stall-mid-stream" },
			config: { queue: { mode: "fair", parallel: 1 } },
		});
		const send = (key: string) => {
			const controller = new AbortController();
			t.teardown(() => controller.abort());
			return fetch(`${gate.url}/api/generate`, {
				method: "POST",
				headers: bearer(key),
				body: JSON.stringify({ model: "qwen3:8b", prompt: "secret words" }),
				signal: controller.signal,
			});
		};
		const page = await startDashboard(t, gate, { freshMs: 0 });
		const held = await send(testKeys.user);
		send(testKeys.worker).catch(() => {});
		await fetch(`${gate.url}/api/tags`);
		await eventually(async () => (await textOf(page.url)).includes("waiting"));
		let text = "";
		await eventually(async () => {
			text = await textOf(page.url);
			return text.includes(">loaded<") && text.includes("key:phone");
		});
		t.match(text, /<dt>At work<\/dt><dd><strong>1</);
		t.match(text, /<dt>Waiting<\/dt><dd><strong>1<\/strong> <small>normal 1</);
		t.match(text, /<bdi>key:laptop<\/bdi>/);
		t.match(text, /<bdi>no_key<\/bdi><\/th><td class="number">1</);
		t.match(text, /\d GiB/);
		t.match(text, "1 of 8 requests a week");
		t.match(text, "No ledger is kept");
		t.match(text, "Has not looked at this host yet");
		t.notMatch(text, /lg_|secret words/);
		await held.body?.cancel();
		await eventually(async () =>
			/<dt>Waiting<\/dt><dd><strong>0</.test(await textOf(page.url)),
		);
	},
);

t.test("it tells open pages what is new, and all of it at first", async (t) => {
	let user = "key:laptop";
	const gate = await startFakeGate(t, () => ({
		...idleLive(),
		top: { ...idleLive().top, requests: [runningRequest({ user })], atWork: 1 },
		pieces: 41,
	}));
	const page = await startDashboard(t, gate, {
		freshMs: 5,
		limits: { intervalMs: 5 },
	});
	const { response, looks } = await openViewer(t, page.url);
	t.match(response.headers.get("content-type"), /^text\/event-stream/);
	const first = (await looks.next()).value;
	t.match(first, {
		isWhole: true,
		points: [[Number, 10, 1, 0, null, null]],
		sections: { now: /At work/, doctor: /Doctor/, budgets: "" },
	});
	user = "key:phone";
	for (;;) {
		const next = (await looks.next()).value;
		if (next?.sections.requests === undefined) continue;
		t.equal(next.isWhole, false);
		t.match(next.sections.requests, "key:phone");
		t.notOk("doctor" in next.sections, "what is as it was is not sent");
		break;
	}
	const second = await openViewer(t, page.url);
	t.match((await second.looks.next()).value, {
		isWhole: true,
		sections: { doctor: /Doctor/, requests: /key:phone/ },
	});
});

t.test("however many watch, the gate is asked once", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const page = await startDashboard(t, gate, { freshMs: 60_000 });
	await Promise.all(Array.from({ length: 20 }, () => textOf(page.url)));
	for (let n = 0; n < 20; n += 1) {
		const { looks } = await openViewer(t, page.url);
		t.match((await looks.next()).value, { isWhole: true });
	}
	t.equal(page.viewers(), 20);
	t.equal(gate.looks, 1);
});

t.test("while nobody watches, the gate is not asked", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const page = await startDashboard(t, gate, {
		freshMs: 1,
		limits: { intervalMs: 1 },
	});
	t.equal(gate.looks, 0);
	const { looks, leave } = await openViewer(t, page.url);
	await looks.next();
	await eventually(() => gate.looks > 5);
	leave();
	await eventually(() => page.viewers() === 0);
	await textOf(`${page.url}page.css`);
	const before = gate.looks;
	for (let n = 0; n < 100; n += 1) await textOf(`${page.url}page.css`);
	t.equal(gate.looks, before);
});

t.test("one page too many is told so", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const page = await startDashboard(t, gate, { limits: { most: 2 } });
	const first = await openViewer(t, page.url);
	await openViewer(t, page.url);
	const { response } = await openViewer(t, page.url);
	t.equal(response.status, 503);
	t.equal(response.headers.get("retry-after"), "5");
	t.match(await response.text(), /too many/);
	first.leave();
	await eventually(() => page.viewers() === 1);
	t.equal((await openViewer(t, page.url)).response.status, 200);
});

t.test("a page that reads nothing is dropped, the others go on", async (t) => {
	let look = 0;
	const gate = await startFakeGate(t, () => {
		look += 1;
		return {
			...idleLive(),
			top: {
				...idleLive().top,
				atWork: 100,
				requests: Array.from({ length: 100 }, (_, n) =>
					runningRequest({
						id: `${n}`,
						user: `key:${look}${"x".repeat(70)}`,
						model: `${look}`.padEnd(80, "m"),
					}),
				),
			},
		};
	});
	const page = await startDashboard(t, gate, {
		freshMs: 1,
		limits: { intervalMs: 1, unreadBytes: 64 * 1024 },
	});
	const { looks } = await openViewer(t, page.url);
	const slow = connect(page.port, "127.0.0.1");
	t.teardown(() => slow.destroy());
	await once(slow, "connect");
	slow.pause();
	slow.write(`GET /events HTTP/1.1\r\nHost: 127.0.0.1:${page.port}\r\n\r\n`);
	await eventually(() => page.viewers() === 2);
	let seen = 0;
	while (page.viewers() === 2) {
		await looks.next();
		seen += 1;
	}
	t.equal(page.viewers(), 1);
	t.ok(seen > 1);
	t.match((await looks.next()).value, { isWhole: false });
});

t.test("a gate that goes away is told of, and waited for", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const page = await startDashboard(t, gate, {
		freshMs: 1,
		limits: { intervalMs: 1 },
	});
	const { looks } = await openViewer(t, page.url);
	t.match((await looks.next()).value, { sections: { now: /At work/ } });
	const until = async (what: RegExp) => {
		for (;;) {
			const { value } = await looks.next();
			if (what.test(value?.sections.now ?? "")) return value;
		}
	};
	gate.isAway = true;
	t.match(await until(/does not answer/), {
		sections: { requests: "", models: "" },
	});
	const text = await textOf(page.url);
	t.match(text, "does not answer");
	t.notMatch(text, "admin.sock", "where it was asked is nobody's to read");
	gate.isAway = false;
	t.match(await until(/At work/), { sections: { models: /Models/ } });
});

t.test("a model's memory and its end are told as they are", async (t) => {
	const gib = 2 ** 30;
	const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();
	const loaded = [
		["whole", 5 * gib, 5 * gib, inMs(299_900), "5.0 GiB</td>", "in 5 min"],
		["part", 40 * gib, 10 * gib, inMs(30_900), "40 GiB, 25 % on", /in \d\d s/],
		["cpu", 300 * 2 ** 20, 0, inMs(-5), "300 MiB, on the CPU", "now"],
		["kept", gib, gib, "2318-01-01T00:00:00Z", "1.0 GiB</td>", "never"],
		["untold", 0, 0, null, ">–</td>", ">–</td>"],
	] as const;
	const gate = await startFakeGate(t, () => ({
		...idleLive(),
		loaded: loaded.map(([name, sizeBytes, vramBytes, expiresAt]) => ({
			...{ name, sizeBytes, vramBytes, expiresAt },
		})),
	}));
	const { url } = await startDashboard(t, gate);
	const rows = (await textOf(url)).split("<tr>");
	for (const [name, , , , ...texts] of loaded) {
		const row = rows.find((text) => text.includes(`<bdi>${name}</bdi>`)) ?? "";
		for (const text of texts) t.match(row, text, name);
	}
});

t.test("whatever names hold is shown as text", async (t) => {
	const evil = '<img src=x onerror="alert(1)">\u202e\u0007';
	const gate = await startFakeGate(t, () => ({
		...idleLive(),
		top: {
			...idleLive().top,
			requests: [
				runningRequest({
					id: '"><script>',
					...{ user: evil, key: evil, node: evil, model: evil, route: evil },
					person: evil,
					priority: evil as never,
					state: evil as never,
				}),
			],
			queue: {
				waiting: { interactive: 0, normal: 0, batch: 0 },
				running: 0,
				models: [
					{
						name: evil,
						state: evil as never,
						...{ slots: 1, running: 1, waiting: 0 },
					},
				],
			},
		},
		refusals: [{ reason: evil, count: 1 }],
		budgets: [
			{
				key: evil,
				per: evil as never,
				used: { gpuMs: 1, tokens: 1, requests: 1 },
				limits: { requests: 5 },
				resetsAt: "2030-01-01T00:00:00Z",
				isKnown: true,
			},
		],
		loaded: [{ name: `b${evil}`, sizeBytes: 1, vramBytes: 1, expiresAt: null }],
	}));
	const page = await startDashboard(t, gate, {
		hosts: new Set(["gpu.example"]),
		allow: "any",
	});
	const { body } = await ask(page.port, "/", {
		host: "gpu.example",
		"tailscale-user-login": "<img src=x>",
	});
	const text = body.toString();
	t.ok(text.split("&#60;img src=x").length > 9);
	t.match(text, /<U\+202E>|&#60;U\+202E&#62;/);
	t.notMatch(text, /<img|[^\P{C}\n\t]/u);
	t.equal(text.match(/<script/g)?.length, 1, "the page's own");
	const { looks } = await openViewer(t, page.url);
	const { sections } = (await looks.next()).value ?? { sections: {} };
	t.notMatch(Object.values(sections).join(""), /<img|<script|[^\P{C}\n\t]/u);
});

t.test("long names and many rows have an end", async (t) => {
	const long = "m".repeat(10_000);
	const gate = await startFakeGate(t, () => ({
		...idleLive(),
		top: {
			...idleLive().top,
			...{ atWork: 500, waiting: 0 },
			requests: Array.from({ length: 200 }, (_, n) =>
				runningRequest({ id: `${n}`, model: long, user: long }),
			),
		},
		refusals: Array.from({ length: 60 }, (_, n) => ({
			reason: `r${n}`,
			count: 1,
		})),
	}));
	const { url } = await startDashboard(t, gate);
	const text = await textOf(url);
	t.ok(text.length < 200_000, String(text.length));
	t.match(text, "And 400 more.");
	t.match(text, /others<\/th><td class="number">48</);
});

t.test(
	"it is only read, loads nothing from elsewhere, and is small",
	async (t) => {
		const gate = await startGate(t);
		const { port } = await startDashboard(t, gate);
		const host = { host: `localhost:${port}` };
		for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
			const { status, headers } = await ask(port, "/", host, method);
			t.equal(status, 405);
			t.equal(headers.allow, "GET, HEAD");
		}
		for (const path of ["/top", "/page.css/..", "/../etc/passwd", "//", "/a"])
			t.equal((await ask(port, path, host)).status, 404, path);
		let packedBytes = 0;
		for (const path of ["/", "/page.css?1", "/page.js", "/curves.js"]) {
			const packed = await ask(port, path, {
				...host,
				"accept-encoding": "gzip, br",
			});
			const plain = await ask(port, path, host);
			t.equal(plain.headers["content-encoding"], undefined);
			t.equal(packed.headers["content-encoding"], "gzip");
			packedBytes += packed.body.length;
			if (path !== "/")
				t.equal(gunzipSync(packed.body).toString(), plain.body.toString());
			t.match(plain.headers["content-security-policy"], /default-src 'none'/);
			t.notMatch(plain.headers["content-security-policy"], /unsafe|https?:|\*/);
			t.equal(plain.headers["x-content-type-options"], "nosniff");
			t.equal(plain.headers["cross-origin-resource-policy"], "same-origin");
			const head = await ask(port, path, host, "HEAD");
			t.equal(head.status, 200);
			t.equal(head.body.length, 0);
		}
		t.ok(packedBytes <= 60 * 1024, `${packedBytes} bytes as transferred`);
		t.equal((await ask(port, "/events", host, "HEAD")).status, 200);
	},
);

t.test("who had how much of the GPU is the ledger's word", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const client = new LedgerClient(place.socket, collectedLog().log);
	for (const [user, gpuMs] of [
		["key:laptop", 3_000],
		["login:me@x.example", 5_000],
		["login:you@x.example", 1_000],
		["jwt:webui:4711", 1_000],
	] as const)
		client.record(recordOf({ user, gpuMs }));
	await client.close(60_000);
	const gate = await startFakeGate(t, idleLive);
	const told = await startDashboard(t, gate, { ledgerSocket: place.socket });
	const text = await textWithShares(told.url);
	t.match(text, /<bdi>login<\/bdi>.{0,300}60 %/s, "people are one user");
	t.match(text, /<bdi>key:laptop<\/bdi>.{0,300}30 %/s);
	t.match(text, /<bdi>jwt:webui<\/bdi>.{0,300}10 %/s);
	t.notMatch(text, /x\.example|4711/);
	const named = await startDashboard(t, gate, {
		ledgerSocket: place.socket,
		people: "on",
	});
	t.match(await textWithShares(named.url), "login:me@x.example");
	const silent = await startDashboard(t, gate, {
		ledgerSocket: path.join(place.folder, "nobody.sock"),
	});
	t.match(await textWithShares(silent.url), "The ledger does not answer");
});

t.test(
	"doctor's last result is told in sum, and where the host is weak is not",
	async (t) => {
		const gate = await startFakeGate(t, idleLive);
		const doctorFile = path.join(gate.folder, "doctor.json");
		for (const results of [openHost, hostileHost]) {
			await keepResult(
				toJson({
					version: "0.1.0",
					at: new Date(Date.now() - 3 * 3_600_000),
					target: "mini",
					results,
				}),
				doctorFile,
			);
			const text = await textOf(
				(await startDashboard(t, gate, { doctorFile })).url,
			);
			t.match(text, /\d findings, worst: critical/);
			t.match(text, "looked 3 h ago.");
			for (const { evidence } of results)
				for (const line of evidence) t.notOk(text.includes(line));
			for (const hostile of hostileTexts) t.notOk(text.includes(hostile));
		}
	},
);

t.test(
	"a machine whose time zone is not known has its days in UTC",
	async (t) => {
		const gate = await startFakeGate(t, idleLive);
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const { TZ } = process.env;
		t.teardown(() => {
			process.env.TZ = TZ;
		});
		// Set to nothing, as Compose sets a variable that is not there; as glibc
		// allows it; and a zone that there is not.
		for (const zone of ["", ":/etc/localtime", "Mars/Olympus"]) {
			process.env.TZ = zone;
			const page = await startDashboard(t, gate, {
				ledgerSocket: place.socket,
			});
			const text = await textWithShares(page.url);
			t.match(text, "since Monday (UTC)", JSON.stringify(zone));
		}
		process.env.TZ = "Europe/Berlin";
		const page = await startDashboard(t, gate, { ledgerSocket: place.socket });
		t.match(await textWithShares(page.url), "since Monday (Europe/Berlin)");
	},
);

t.test("a ledger that answers strangely ends no page", async (t) => {
	const gate = await startFakeGate(t, idleLive);
	const ledgerSocket = path.join(gate.folder, "ledger.sock");
	const ledger = createServer((socket) => {
		socket.on("error", () => {});
		socket.end('{"rows":[null]}\n');
	});
	await once(ledger.listen(ledgerSocket), "listening");
	t.teardown(() => ledger.close());
	const page = await startDashboard(t, gate, { ledgerSocket });
	t.match(await textWithShares(page.url), "The ledger does not answer");
});

t.test(
	"what cannot be shown closes pages, and the server goes on",
	async (t) => {
		const page = createDashboard(
			"mini",
			{ look: () => Promise.reject(new Error("strange")) } as unknown as Watch,
			() => ({
				port,
				address: "127.0.0.1",
				hosts: new Set(),
				allow: new Set(),
			}),
		);
		await once(page.server.listen(0, "127.0.0.1"), "listening");
		const { port } = page.server.address() as AddressInfo;
		t.teardown(() => page.close());
		for (let n = 0; n < 2; n += 1) {
			const events = await fetch(`http://127.0.0.1:${port}/events`);
			t.equal(events.status, 200);
			await t.rejects(events.text(), "it comes again by itself");
		}
		await eventually(() => page.viewers() === 0);
		t.equal((await fetch(`http://127.0.0.1:${port}/page.css`)).status, 200);
	},
);
