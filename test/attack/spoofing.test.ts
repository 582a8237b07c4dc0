import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';

/** Everything by which some proxy, framework or cloud lets somebody be somebody else. */
const claims = [
	"X-Forwarded-For: 127.0.0.9",
	"X-Forwarded-For: 127.0.0.9, 100.64.0.1",
	"X_Forwarded_For: 127.0.0.9",
	"X-Forwarded-Host: 127.0.0.1:11434",
	"X-Forwarded-Proto: https",
	"X-Forwarded-Port: 443",
	"X-Forwarded-Uri: /",
	"X-Forwarded-Method: GET",
	"X-Forwarded-Prefix: /api",
	"X-Forwarded-User: owner",
	"X-Forwarded-Email: me@example.com",
	"X-Forwarded-Server: gate",
	"X-Real-IP: 127.0.0.9",
	"X-Client-IP: 127.0.0.9",
	"X-Cluster-Client-IP: 127.0.0.9",
	"X-Originating-IP: 127.0.0.9",
	"X-Remote-IP: 127.0.0.9",
	"X-Remote-Addr: 127.0.0.9",
	"X-Remote-User: owner",
	"Remote-User: owner",
	"True-Client-IP: 127.0.0.9",
	"CF-Connecting-IP: 127.0.0.9",
	"Fastly-Client-IP: 127.0.0.9",
	"Forwarded: for=127.0.0.9;host=127.0.0.1;proto=http",
	"Via: 1.1 localhost",
	"X-Original-URL: /",
	"X-Rewrite-URL: /",
	"X-Original-Method: GET",
	"X-HTTP-Method: GET",
	"X-HTTP-Method-Override: GET",
	"X-Method-Override: GET",
	"X-Host: 127.0.0.1:11434",
	"X-Ollama-Key: x",
	"X-Custom-IP-Authorization: 127.0.0.1",
	"X-Internal: true",
	"X-Health-Check: 1",
	"X-Authenticated-User: owner",
	"X-Authenticated: true",
	"X-User: owner",
	"X-Scope: manage",
	"X-Key-Name: owner",
	"X-Accel-Internal: /",
	"X-Middleware-Subrequest: middleware",
	"Tailscale-User-Login: me@example.com",
	"Tailscale-User-Name: Me",
	"Tailscale-Headers-Info: https://tailscale.com/s/serve-headers",
	"X-Webauth-User: owner",
	"X-Tailscale-Ip: 100.64.0.1",
	"Cookie: session=owner",
	"Referer: http://127.0.0.1:11434/",
	"Origin: http://127.0.0.1:11434",
	"Max-Forwards: 0",
	"Pragma: x",
	"Cache-Control: no-cache",
	"If-None-Match: *",
	"Range: bytes=0-1",
	"Trailer: Authorization",
	"TE: trailers",
	"Keep-Alive: timeout=99999",
	"Accept-Encoding: gzip, br, zstd",
	"Content-MD5: x",
	"Early-Data: 1",
	"DNT: 1",
	"__proto__: x",
	"constructor: x",
];

const healthCheckers = [
	"kube-probe/1.30",
	"GoogleHC/1.0",
	"ELB-HealthChecker/2.0",
	"Amazon-Route53-Health-Check-Service",
	"Consul Health Check",
	"Prometheus/3.0",
	"Edge Health Probe",
	"UptimeRobot/2.0",
	"ollama/0.33.0 (amd64 linux) Go/go1.24",
	"llamagate",
	"",
];

t.test("no header but the key's lets anybody in", async (t) => {
	const gate = await startGate(t);
	for (const claim of claims) {
		for (const request of [
			head("GET /api/tags HTTP/1.1", "Host: gate", claim),
			post("/api/embed", body, claim),
		]) {
			const { status } = await attack(gate, request);
			t.equal(status, 401, claim);
		}
	}
	const all = await attack(
		gate,
		head("GET /api/tags HTTP/1.1", "Host: gate", ...claims),
	);
	t.equal(all.status, 401, "all of them at once");
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});

t.test("no health checker is let in without a key", async (t) => {
	const gate = await startGate(t);
	for (const agent of healthCheckers) {
		for (const path of ["/", "/api/version", "/api/tags", "/health", "/ping"]) {
			for (const method of ["GET", "HEAD"]) {
				const response = await fetch(`${gate.url}${path}`, {
					method,
					headers: { "user-agent": agent },
				});
				await response.arrayBuffer();
				t.equal(response.status, 401, `${method} ${path} by ${agent}`);
			}
		}
	}
	t.equal(gate.standIn.calls.length, 0, "nothing reached Ollama");
});

t.test(
	"what a client claims changes nothing, and Ollama never hears it",
	async (t) => {
		const gate = await startGate(t);
		const known = new Set([
			"host",
			"connection",
			"content-type",
			"content-length",
			"accept",
			"user-agent",
			"anthropic-version",
			"anthropic-beta",
		]);
		for (const claim of [
			...claims,
			...healthCheckers.map((a) => `User-Agent: ${a}`),
		]) {
			const { status } = await attack(
				gate,
				post("/api/embed", body, shows(testKeys.user), claim),
			);
			t.equal(status, 200, claim);
			const call = gate.standIn.calls.at(-1);
			t.equal(`${call?.method} ${call?.target}`, "POST /api/embed", claim);
			t.equal(call?.headers.host, `127.0.0.1:${gate.standIn.port}`, claim);
			t.equal(call?.body.toString(), body, claim);
			for (const name of Object.keys(call?.headers ?? {}))
				t.ok(known.has(name), `${claim}: ${name} is one of ours`);
			t.equal(call?.headers.connection, undefined, claim);
		}
		t.equal(
			gate.standIn.calls.length,
			claims.length + healthCheckers.length,
			"each reached Ollama once",
		);
	},
);

t.test("no key and no other credential goes upstream", async (t) => {
	const gate = await startGate(t);
	const key = testKeys.user;
	for (const lines of [
		[shows(key)],
		[`X-Api-Key: ${key}`],
		[shows(key), `X-Api-Key: ${key}`],
		[`Authorization: Basic ${btoa(`me:${key}`)}`],
		[
			shows(key),
			`Proxy-Authorization: Bearer ${key}`,
			`Cookie: key=${key}`,
			`X-Forwarded-Authorization: ${key}`,
			`X_Api_Key: ${key}`,
			`Referer: http://gate/?key=${key}`,
		],
	]) {
		const { status } = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", "Host: gate", ...lines),
		);
		t.equal(status, 200);
		const heard = JSON.stringify(gate.standIn.calls.at(-1)?.rawHeaders);
		t.notOk(heard.includes(key), heard);
		t.notMatch(heard, /authorization|x-api-key|cookie|basic|bearer/i);
	}
});

t.test("a source is the socket's address and not a header's", async (t) => {
	const gate = await startGate(t, { config: { sources: ["127.0.0.2/32"] } });
	const foreign = [
		"X-Forwarded-For: 127.0.0.2",
		"X-Real-IP: 127.0.0.2",
		"Forwarded: for=127.0.0.2",
		"Host: 127.0.0.2",
		"X-Client-IP: 127.0.0.2",
	];
	for (const claim of foreign) {
		const { status, replies } = await attack(
			gate,
			head("GET /api/tags HTTP/1.0", claim, shows(testKeys.owner)),
			"127.0.0.1",
		);
		t.equal(status, 403, claim);
		t.equal(replies[0]?.headers.connection, "close");
	}
	for (const bytes of [
		"\0\0\r\n\r\n",
		head("CONNECT x:1 HTTP/1.1", "Host: x", shows(testKeys.owner)),
		head("GET / HTTP/1.1", `X: ${"y".repeat(20_000)}`),
	])
		t.equal((await attack(gate, bytes, "127.0.0.1")).status, 403);
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate, "127.0.0.2"), 200);
});

t.test("a foreign source that is to be dropped gets not a byte", async (t) => {
	const gate = await startGate(t, {
		config: { sources: ["127.0.0.2/32"], onForeignSource: "drop" },
	});
	for (const bytes of [
		head("GET /api/tags HTTP/1.1", "Host: gate", shows(testKeys.owner)),
		head("CONNECT x:1 HTTP/1.1", "Host: x", shows(testKeys.owner)),
		"\0\0\r\n\r\n",
	]) {
		const { status, closed } = await attack(gate, bytes, "127.0.0.1");
		t.equal(status, 0);
		t.ok(closed);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate, "127.0.0.2"), 200);
});

t.test(
	"Connection takes away what may be forwarded, and nothing else",
	async (t) => {
		const gate = await startGate(t);
		const options = [
			"authorization",
			"Authorization, X-Api-Key",
			"host",
			"content-length",
			"content-type",
			"transfer-encoding",
			"user-agent, accept",
			"close, content-length, host",
			"keep-alive, authorization",
			"x-forwarded-for",
			"connection",
			"te, trailer, upgrade",
			",,,",
			'"authorization"',
			"close\tauthorization",
			Array.from({ length: 500 }, (_, n) => `x${n}`).join(","),
		];
		for (const option of options) {
			const { status } = await attack(
				gate,
				post(
					"/api/embed",
					body,
					shows(testKeys.user),
					"Content-Type: application/json",
					`Connection: ${option}`,
				),
			);
			t.equal(status, 200, `Connection: ${option.slice(0, 40)}`);
			const call = gate.standIn.calls.at(-1);
			t.equal(call?.body.toString(), body);
			t.equal(call?.headers["content-length"], String(body.length));
			t.equal(call?.headers.host, `127.0.0.1:${gate.standIn.port}`);
			t.equal(call?.headers.connection, undefined);
			t.equal(
				call?.headers["content-type"],
				/(^|[ ,])content-type/.test(option) ? undefined : "application/json",
			);
			const stranger = await attack(
				gate,
				post("/api/embed", body, `Connection: ${option}`),
			);
			t.equal(stranger.status, 401, "and lets nobody in");
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
	},
);
