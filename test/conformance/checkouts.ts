import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { testKeys } from "../support/gate.ts";
import { readRequestsLikeGo } from "../support/goHttp.ts";
import { head, shows } from "../support/raw.ts";
import type { Case, Label } from "./judge.ts";

/**
 * Suites of other projects, read from checkouts of theirs; none of their files
 * is part of this repository.
 */
export const suites = {
	llhttp: {
		repository: "nodejs/llhttp",
		what: "the request cases of the parser that Node has, test/request/*.md",
		read: readLlhttp,
		leavesHostOut: true,
	},
	"http-desync-guardian": {
		repository: "aws/http-desync-guardian",
		what: "heads of requests in four tiers, tests/*.yaml",
		read: readDesyncGuardian,
		leavesHostOut: true,
	},
	h1spec: {
		repository: "uNetworking/h1spec",
		what: "a conformance checker for HTTP/1.1 servers, http_test.ts",
		read: readH1spec,
		leavesHostOut: false,
	},
} as const;

/** Each case has an input in `http` and, in `log`, what the parser makes of it. */
function readLlhttp(folder: string): Case[] {
	const where = path.join(folder, "test/request");
	return readdirSync(where)
		.filter((name) => name.endsWith(".md"))
		.flatMap((name) => {
			const text = readFileSync(path.join(where, name), "utf8");
			const pattern =
				/<!-- meta=(\{.*?\}) -->\s*```http\n(.*?\n)```\n.*?```log\n(.*?)```/gs;
			return [...text.matchAll(pattern)].map(
				([, meta = "{}", input = "", log = ""], index) => ({
					id: `${name}#${index + 1}`,
					label: llhttpLabel(JSON.parse(meta) as LlhttpMeta, log),
					bytes: readInput(input),
				}),
			);
		});
}

interface LlhttpMeta {
	readonly type: string;
	readonly skipBody?: boolean;
}

function llhttpLabel({ type, skipBody }: LlhttpMeta, log: string): Label {
	// What only a lenient parser takes, or one that is told to pass over a body.
	if (type.includes("lenient") || skipBody === true) return "doubtful";
	if (/error code=(?!2[1-4]\b)/.test(log)) return "invalid";
	return log.includes("message complete") ? "valid" : "unfinished";
}

const letters: Readonly<Record<string, string>> = {
	r: "\r",
	n: "\n",
	t: "\t",
	f: "\f",
};

/** A line's end stands for CR LF, unless a backslash takes it away; other bytes are escaped as in C. */
function readInput(input: string): string {
	const lines = input.slice(0, -1).split("\\\n").join("");
	return lines
		.replaceAll("\n", "\r\n")
		.replace(
			/\\(?:x(?<hex>[\da-f]+)|(?<octal>[0-7]{1,3})|(?<letter>[rntf]))/gi,
			(...found) => {
				const { hex, octal, letter } = found.at(-1) as Record<
					string,
					string | undefined
				>;
				if (letter !== undefined) return letters[letter] ?? letter;
				const code = Number.parseInt(hex ?? octal ?? "", hex ? 16 : 8);
				return String.fromCharCode(code & 0xff);
			},
		);
}

const tiers: Readonly<Record<string, Label>> = {
	Compliant: "valid",
	Acceptable: "doubtful",
	Ambiguous: "doubtful",
	Severe: "invalid",
};

interface GuardianCase {
	readonly name: string;
	readonly uri: string;
	readonly method: string;
	readonly version: string;
	/** An empty text where there are none. */
	readonly headers?: readonly { name: string; value: string }[] | "";
	readonly expected: { readonly tier: string };
}

function readDesyncGuardian(folder: string): Case[] {
	const where = path.join(folder, "tests");
	return readdirSync(where)
		.filter((name) => name.endsWith(".yaml"))
		.flatMap((name) =>
			readYaml(path.join(where, name)).map((one, index) => ({
				id: `${name}#${index + 1}`,
				label: tiers[one.expected.tier] ?? "invalid",
				bytes: withBody(guardianHead(one)),
			})),
		);
}

/** Every scalar as text: `1000` and `1_000` are not the same header. */
function readYaml(file: string): GuardianCase[] {
	const program =
		"import json, sys, yaml; json.dump(yaml.load(open(sys.argv[1], encoding='utf-8'), Loader=yaml.BaseLoader), sys.stdout)";
	return JSON.parse(
		execFileSync("python3", ["-c", program, file], { encoding: "utf8" }),
	) as GuardianCase[];
}

function guardianHead(one: GuardianCase): string {
	const line = [one.method, one.uri, one.version].join(" ").trimEnd();
	const text = head(
		line,
		...[...(one.headers || [])].map(({ name, value }) => `${name}: ${value}`),
	);
	// biome-ignore lint/suspicious/noControlCharactersInRegex: every byte there is
	return /^[\x00-\xff]*$/.test(text)
		? text
		: Buffer.from(text, "utf8").toString("latin1");
}

/** These cases are heads only. A body as the head announces it, and what an attacker would hide behind it. */
function withBody(text: string): string {
	const hidden = head(
		"GET /api/ps HTTP/1.1",
		"Host: gate",
		shows(testKeys.owner),
		"Connection: close",
	);
	const { partial, end } = readRequestsLikeGo(
		/^host:/im.test(text) ? text : text.replace("\r\n", "\r\nHost: x\r\n"),
	);
	const [length] = partial?.headers.get("content-length") ?? [];
	const chunked = partial?.headers.has("transfer-encoding");
	if (end === "incomplete" && !chunked && Number(length) <= 100_000)
		return `${text}${"x".repeat(Number(length))}${hidden}`;
	return `${text}${chunked || end === "refused" ? "5\r\nhello\r\n0\r\n\r\n" : ""}${hidden}`;
}

/** The table of test cases, without running any of the checker's code. */
function readH1spec(folder: string): Case[] {
	const text = readFileSync(path.join(folder, "http_test.ts"), "utf8");
	const pattern =
		/request: ("(?:[^"\\]|\\.)*"),\s*description: "[^"]*",\s*expectedStatus: (\[\[.*?\]\])/g;
	return [...text.matchAll(pattern)].map(
		([, request = '""', expected = "[]"], index) => {
			const ranges = JSON.parse(expected) as [number, number][];
			const good = ranges.some(([from]) => from >= 100 && from < 300);
			const bad = ranges.some(([from]) => from >= 400);
			return {
				id: `http_test.ts#${index + 1}`,
				label:
					good && bad
						? "doubtful"
						: good
							? "valid"
							: bad
								? "invalid"
								: "unfinished",
				bytes: JSON.parse(
					request.replace(/\\x([0-9a-fA-F]{2})/g, "\\u00$1"),
				) as string,
			};
		},
	);
}
