import { authenticate } from "../../src/gate/authenticate.ts";
import { readHead } from "../../src/gate/requestHead.ts";
import { checkFraming, checkRoute } from "../../src/gate/route.ts";
import { Keyring } from "../../src/keys/keyring.ts";
import { BodyScan, type ScanResult } from "../../src/ollama/bodyScan.ts";
import { SignatureUses } from "../../src/ollama/cliSignature.ts";
import { FormScan } from "../../src/ollama/formScan.ts";
import { matchRoute, type Route, routes } from "../../src/ollama/routes.ts";
import { WatchList } from "../../src/ollama/watchedNames.ts";
import { testEntries, testKeys } from "../support/gate.ts";
import { readFormLikeGo } from "../support/goForm.ts";
import { fold, readLikeGo } from "../support/goJson.ts";
import { readReply, readReplySlowly } from "../support/replies.ts";
import { everyBytes, readEnd } from "../support/replyEnds.ts";

/** A piece of the daemon that reads what strangers send, and what must hold whatever they send. */
export interface Target {
	readonly name: string;
	/** Ends of the paths whose blocks guide the search. */
	readonly files: readonly string[];
	/** What the search begins with, beside its corpus; text in Latin-1, a character a byte. */
	readonly seeds: readonly string[];
	readonly dictionary: readonly string[];
	/** What it is given at most: a head is bounded by Node. */
	readonly maxBytes: number;
	/** @throws if something does not hold */
	run(input: string): void;
}

function must(holds: boolean, what: string): void {
	if (!holds) throw new Error(what);
}

const anySegment: Route["parameter"] = /(?!)/;

/** The table read the slow way: each route as one expression. */
function routeOf(method: string, path: string): Route | undefined {
	return routes.find((route) => {
		if (route.method !== method) return false;
		if (route.parameter === undefined) return route.path === path;
		const prefix = route.path.slice(0, route.path.indexOf(":"));
		return (
			path.startsWith(prefix) &&
			(route.parameter ?? anySegment).test(path.slice(prefix.length))
		);
	});
}

const routeTarget: Target = {
	name: "route",
	files: ["src/ollama/routes.ts"],
	seeds: [
		...routes.map(({ method, path }) => `${method} ${path}`),
		"GET /v1/models/qwen3:8b",
		"GET /v1/models/%2e%2e",
		"GET /v1/models/..",
		"DELETE /api/user/keys/a/../b",
		`POST /api/blobs/sha256:${"0a".repeat(32)}`,
		"DELETE /api/user/keys/abc_-==",
		"GET /api/tags?x=/api/delete",
	],
	dictionary: [
		"/",
		"//",
		"/..",
		"%2f",
		"%00",
		"?",
		"#",
		"/v1/",
		"/v1/messages",
		"/api/",
		"sha256-",
		"\n",
	],
	maxBytes: 16_384,
	run(input) {
		const [, method = "", target = ""] = /^([^ ]*) ?(.*)$/s.exec(input) ?? [];
		const path = target.split("?", 1)[0] ?? "";
		const match = matchRoute(method, target);
		const wanted = routeOf(method, path);
		must(
			(match.kind === "route" ? match.route : undefined) === wanted,
			`the table says ${wanted?.id}, the look-up ${match.kind}`,
		);
		if (match.kind === "route") {
			must(match.path === path, "another path goes on than was asked for");
			must(
				/^\/[A-Za-z0-9._:@=/-]*$/.test(path) && !/\/\/|\/\.+(\/|$)/.test(path),
				"a path that Ollama's router could read otherwise",
			);
		}
		if (match.kind === "wrong-method")
			must(!match.allow.some((one) => one === method), "its method is allowed");
	},
};

const keyring = new Keyring(testEntries);
const goodKeys = [
	testKeys.user,
	testKeys.owner,
	testKeys.reader,
	testKeys.worker,
];

/** The good key that a value carries in one of the ways there are. */
function keyCarried(name: string, value: string): string | undefined {
	if (name === "x-api-key") return goodKeys.find((key) => key === value);
	const [, basic] = /^basic +(.*)$/i.exec(value) ?? [];
	const text =
		basic === undefined
			? value
			: Buffer.from(basic, "base64").toString("latin1");
	return goodKeys.find((key) => text.endsWith(key));
}

/** The good key that a value is and nothing else, so that it must be taken. */
function keyPlainlyShown(name: string, value: string): string | undefined {
	const plain = name === "x-api-key" ? value : value.replace(/^Bearer /, "");
	return plain === value && name !== "x-api-key"
		? undefined
		: goodKeys.find((key) => key === plain);
}

const headTarget: Target = {
	name: "head",
	files: [
		"src/gate/requestHead.ts",
		"src/gate/authenticate.ts",
		"src/gate/route.ts",
		"src/ollama/cliSignature.ts",
	],
	seeds: [
		`GET /api/tags\nHost: x\nAuthorization: Bearer ${testKeys.user}`,
		`POST /api/chat\nx-api-key: ${testKeys.worker}\nContent-Length: 5`,
		`GET /\nAuthorization: Bearer ${testKeys.user}\nauthorization: Bearer ${testKeys.wrong}`,
		`GET /\nAuthorization: Bearer ${testKeys.user}\nx-api-key: ${testKeys.wrong}`,
		`GET /\nAuthorization: Bearer ${testKeys.wrong}\nx-api-key: ${testKeys.user}`,
		`POST /api/chat\nAuthorization: Basic ${btoa(`x:${testKeys.owner}`)}\nTransfer-Encoding: chunked`,
		`GET /api/tags?ts=1700000000\nAuthorization: ${"A".repeat(68)}:${"A".repeat(86)}==`,
		"GET /\nConnection: close, accept\nAccept: x\nUser-Agent: y\nExpect: 100-continue",
		"POST /api/chat\nContent-Encoding: gzip\nUpgrade: h2c\nOrigin: http://x",
	],
	dictionary: [
		"\nAuthorization: ",
		"\nx-api-key: ",
		"\nConnection: ",
		"\nContent-Length: 0",
		"\nTransfer-Encoding: chunked",
		"\nHost: a",
		"\nExpect: ",
		"Bearer ",
		"Basic ",
		"?ts=1",
		...goodKeys,
	],
	maxBytes: 16_384,
	run(input) {
		const [line = "", ...lines] = input.split("\n");
		const [method = "", target = ""] = line.split(" ");
		const raw = lines.flatMap((one) => {
			const colonAt = one.indexOf(":");
			return [
				one.slice(0, Math.max(0, colonAt)),
				one.slice(colonAt + 1).trim(),
			];
		});
		const head = readHead(raw);
		const keys = raw.flatMap((name, index) =>
			index % 2 === 0 && /^(authorization|x-api-key)$/i.test(name)
				? [[name.toLowerCase(), raw[index + 1] ?? ""] as const]
				: [],
		);
		const found = authenticate(
			head,
			{ method, target },
			keyring,
			new SignatureUses(),
			1_700_000_000_000,
		);
		const carried = new Set(
			keys.flatMap(([name, value]) => keyCarried(name, value) ?? []),
		);
		const plain = new Set(
			keys.flatMap(([name, value]) => keyPlainlyShown(name, value) ?? []),
		);
		if (found.kind === "known")
			must(
				carried.size > 0 && plain.size < 2,
				"somebody is let in who does not plainly show one key",
			);
		else if (keys.length <= 8 && plain.size === 1)
			must(carried.size > 1, "a good key, plainly shown, is refused");
		for (let i = 0; i < head.forwarded.length; i += 2)
			must(
				!head.connectionOptions.has(head.forwarded[i] ?? ""),
				"a hop-by-hop header is passed on",
			);
		if (
			checkFraming(head, "1.1") === undefined &&
			checkRoute(matchRoute(method, target), target, head) === undefined
		)
			must(
				head.contentLength.length + head.transferEncoding.length < 2 &&
					head.host.length === 1,
				"a request that ends in two ways is let through",
			);
	},
};

const fields = ["model", "name", "keep_alive"];
const watched = [...fields, "options"];
const watchList = new WatchList({
	fields,
	options: ["num_ctx", "num_gpu"],
	maps: ["files"],
	toolTypes: ["web_search"],
});

const bodyTarget: Target = {
	name: "body",
	files: [
		"src/ollama/bodyFinds.ts",
		"src/ollama/bodyScan.ts",
		"src/ollama/escapedText.ts",
		"src/ollama/jsonTokens.ts",
		"src/ollama/plainJson.ts",
		"src/ollama/utf8Check.ts",
		"src/ollama/watchedNames.ts",
	],
	seeds: [
		'{"model":"qwen3:8b","messages":[{"role":"user","content":"x"}],"stream":true}',
		'{"\\u006dodel":"a","options":{"num_ctx":1,"stop":["x"]},"keep_alive":-1.5e3}',
		'{"a":[[],{},null,true,false,0,-1],"name":"\\ud83d\\ude00"} ',
		'{"MODEL":"x"}',
		'{"\xe2\x84\xaaeep_alive":0}',
		'{"option\xc5\xbf":{}}',
		'{"model":"a"}{"model":"b"}',
		'{"model":"a","files":{"x":"sha256:ab","\\u0079":"b"}}',
		'{"tools":[{"type":"function"},{"Type":"web\\u005fsearch_1"},{"name":"x"}]}',
		'{"options":{"NUM_CTX":1,"num_gpu":-0,"a":[1.5E+2,0,-0.1e-9,true,false,null]}}',
	],
	dictionary: [
		'"files":{"a":"b"}',
		'"tools":[{"type":"web_search"}]',
		'"model":',
		'"name":"x"',
		'"options":{',
		'"num_ctx":1',
		'"keep_alive":0',
		"\\u006d",
		"\xe2\x84\xaa",
		"\xc5\xbf",
		"\xef\xbb\xbf",
		'\\"',
		"null",
		"{}",
		"[[[[",
		"1e9",
	],
	maxBytes: 262_144,
	run(input) {
		const bytes = Buffer.from(input, "latin1");
		const scan = (pieceBytes: number) => {
			const reader = new BodyScan(watchList);
			for (let at = 0; at < bytes.length; at += pieceBytes)
				reader.push(bytes.subarray(at, at + pieceBytes));
			return reader.finish();
		};
		const whole = scan(Math.max(1, bytes.length));
		for (const pieceBytes of bytes.length > 4096 ? [1000] : [1, 3])
			must(
				show(whole) === show(scan(pieceBytes)),
				"the pieces make a difference",
			);
		const text = bytes.toString("utf8");
		if (whole.kind === "unclear") {
			if (/valid JSON|not complete/.test(whole.message))
				must(!isJson(text), `JSON is refused: ${whole.message}`);
			return;
		}
		const go = readLikeGo(bytes, [...watched, "files", "tools"]);
		// What Go refuses it does not act on.
		if (go.error) return;
		for (const name of watched) {
			const seen = go.fields.get(name);
			const here = whole.fields.get(name);
			must(
				whole.fields.has(name) === go.fields.has(name),
				`only one has ${name}`,
			);
			must(
				typeof seen === "object" && seen !== null
					? here === undefined
					: Object.is(seen, here),
				`${name}: Go reads ${JSON.stringify(seen)}, the scan ${JSON.stringify(here)}`,
			);
		}
		const options = asMap(go.fields.get("options"));
		for (const name of ["num_ctx", "num_gpu"]) {
			const seen = options[name];
			const here = whole.fields.get(`options.${name}`);
			must(
				typeof seen === "object" && seen !== null
					? here === undefined
					: Object.is(seen, here),
				`options.${name}: Go reads ${JSON.stringify(seen)}, the scan ${JSON.stringify(here)}`,
			);
		}
		for (const file of Object.values(asMap(go.fields.get("files"))))
			if (typeof file === "string" && file.length < 40)
				must(whole.mapped.includes(file), `the file ${file} is not seen`);
		const tools = go.fields.get("tools");
		for (const tool of Array.isArray(tools) ? tools : [])
			for (const [key, type] of Object.entries(asMap(tool)))
				must(
					fold(key) !== "type" ||
						!String(type).startsWith("web_search") ||
						whole.toolType !== undefined,
					"a tool is not seen",
				);
	},
};

function asMap(value: unknown): Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value)
		? (value as Record<string, unknown>)
		: {};
}

/** What two scans of one body must agree in; of two mistakes in it, either may be told. */
function show(result: ScanResult): string {
	return result.kind === "unclear"
		? result.kind
		: JSON.stringify([
				[...result.fields].map(([name, value]) => [name, value ?? null]),
				result.mapped,
				result.toolType,
			]);
}

function isJson(text: string): boolean {
	try {
		JSON.parse(text);
		return true;
	} catch {
		return false;
	}
}

const formTarget: Target = {
	name: "form",
	files: ["src/ollama/formScan.ts", "src/ollama/formHead.ts"],
	seeds: [
		'multipart/form-data; boundary=x\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\nab\r\n--x--\r\n',
		'multipart/form-data; boundary="a-b"\n--a-b\r\ncontent-disposition: form-data; name="Model"\r\n\r\nw\r\n--a-b--',
		"multipart/form-data; charset=utf-8; boundary=\"7=a.b/+\"\n--7=a.b/+\r\nContent-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: binary\r\nContent-Length: 1\r\n\r\nw\r\n--7=a.b/+\r\nContent-Disposition: form-data; name=file; filename=a; filename*=utf-8''a\r\nContent-Length: 0\r\n\r\n\r\n--7=a.b/+--",
		"application/json\n{}",
	],
	dictionary: [
		"--x",
		"\r\n--x\r\n",
		'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nb',
		"\r\n--x--\r\n",
		"\r\n\r\n",
		'Content-Disposition: form-data; name="model"',
		'; filename="x"',
		"; name*=utf-8''model",
		"; filename*=utf-8''x",
		"name=model",
		"Content-Type: x",
		"; charset=utf-8",
		"\r\nContent-Length: 1",
		"\r\nContent-Transfer-Encoding: quoted-printable",
		"\r\nContent-Transfer-Encoding: binary",
		"boundary=",
		"boundary*=",
	],
	maxBytes: 262_144,
	run(input) {
		const lineEnd = input.indexOf("\n");
		const type = input.slice(0, Math.max(0, lineEnd));
		const text = input.slice(lineEnd + 1);
		const bytes = Buffer.from(text, "latin1");
		const scan = (pieceBytes: number) => {
			const reader = new FormScan(type);
			for (let at = 0; at < bytes.length; at += pieceBytes)
				reader.push(bytes.subarray(at, at + pieceBytes));
			return reader.finish();
		};
		const found = scan(Math.max(1, bytes.length));
		for (const pieceBytes of bytes.length > 4096 ? [1000] : [1, 3, 7])
			must(
				JSON.stringify(scan(pieceBytes)) === JSON.stringify(found),
				"the pieces make a difference",
			);
		if (found.kind === "unclear") return;
		const [, , boundary = ""] = /boundary=("?)([^";]*)\1/i.exec(type) ?? [];
		const parts = readFormLikeGo(text, boundary);
		must(
			parts !== undefined,
			"Go refuses the form, or others read it otherwise",
		);
		const models = (parts ?? []).filter(
			({ name }) => name.toLowerCase() === "model",
		);
		must(
			models.length === 1 && models[0]?.value === found.value,
			`Go reads ${JSON.stringify(models)}, the scan ${JSON.stringify(found.value)}`,
		);
	},
};

// One for each way in which replies end.
const replyRoutes = routes.filter(({ path }) =>
	[
		"/api/chat",
		"/api/embed",
		"/v1/completions",
		"/v1/messages",
		"/v1/responses",
	].includes(path),
);
const formats = ["ndjson", "sse", "opaque"] as const;

const usageTarget: Target = {
	name: "usage",
	files: [
		"src/ollama/usage.ts",
		"src/ollama/replyCounts.ts",
		"src/ollama/memberScan.ts",
	],
	seeds: [
		'{"model":"qwen3:8b","response":"a","done":false}\n{"model":"qwen3:8b","done":true,"total_duration":9,"prompt_eval_count":11,"eval_count":22}\n',
		'data: {"model":"q","usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
		'event: message_delta\ndata: {"usage":{"input_tokens":1,"output_tokens":2}}\n\nevent: message_stop\ndata: {}\n\n',
		'event: response.completed\ndata: {"response":{"model":"m"}}\n\n',
		'{"error":"x"}\n',
		'{"done":true,"context":[1,2,3],"total_duration":1,"eval_count":3}',
	],
	dictionary: [
		'"model":"',
		'"eval_count":7',
		'"prompt_eval_count":8',
		'\\"eval_count\\":9',
		'"done":true',
		'{"error":',
		"data: ",
		"event: error\n",
		"[DONE]",
		',"total_duration":1',
		"}\n",
		"x".repeat(1024),
	],
	maxBytes: 262_144,
	run(input) {
		const bytes = Buffer.from(input, "latin1");
		const pieceBytes = bytes.length > 8192 ? 999 : 7;
		for (const { path } of replyRoutes)
			for (const format of formats) {
				const whole = readEnd(path, format, bytes);
				const pieces = readEnd(
					path,
					format,
					bytes,
					everyBytes(bytes.length, pieceBytes),
				);
				must(
					JSON.stringify(whole) === JSON.stringify(pieces),
					"the pieces make a difference",
				);
				for (const count of [whole.usage.tokensIn, whole.usage.tokensOut])
					must(
						count === undefined || Number.isSafeInteger(count),
						`a count of ${count}`,
					);
			}
		const text = input.replace(/[ \t\r\n]+$/, "");
		const line = text.slice(text.lastIndexOf("\n") + 1);
		if (input.length - text.length > 4000 || !isJson(line)) return;
		const last = JSON.parse(line) as { done?: unknown } | null;
		if (typeof last !== "object" || Array.isArray(last)) return;
		must(
			readEnd("/api/chat", "ndjson", bytes).isComplete ===
				(last?.done === true || (last as { error?: unknown })?.error != null),
			"an end is not seen, or one that is none",
		);
	},
};

const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

const replyTarget: Target = {
	name: "reply",
	files: ["src/upstream/responseParser.ts"],
	seeds: [
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		`${chunkedHead}2\r\n{}\r\na\r\n0123456789\r\n0\r\n\r\n`,
		`${chunkedHead}0\r\n\r\nHTTP/1.1 200 OK\r\n`,
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	],
	dictionary: [
		"\r\n",
		"\r\n\r\n",
		"\n",
		"Content-Length: 3\r\n",
		"Transfer-Encoding: chunked\r\n",
		"Connection: close\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"0\r\n\r\n",
		"5;x=y\r\n",
		"fffffffffff\r\n",
		"\0",
		": ",
	],
	maxBytes: 65_536,
	run(input) {
		for (const answersHead of [false, true]) {
			const whole = readReply(input, answersHead, 65_536);
			for (const pieceBytes of input.length > 4096 ? [997] : [1, 7])
				must(
					readReply(input, answersHead, pieceBytes) === whole,
					"the pieces make a difference",
				);
			const slow = readReplySlowly(input, answersHead);
			must(whole === slow, `read as ${whole}, and slowly as ${slow}`);
		}
	},
};

export const targets: readonly Target[] = [
	routeTarget,
	headTarget,
	bodyTarget,
	formTarget,
	usageTarget,
	replyTarget,
];
