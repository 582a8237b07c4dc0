import { execFileSync } from "node:child_process";
import { createPrivateKey, sign } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
	isSignedBy,
	maxUses,
	parseOllamaKey,
	readCliSignature,
	SignatureUses,
} from "../../src/ollama/cliSignature.ts";
import { temporaryFolder } from "../support/gate.ts";
import { signLikeOllama } from "../support/ollamaKey.ts";
import { requireTool } from "../support/tools.ts";

t.test(
	"what the ollama command signs is verified, and nothing else",
	async (t) => {
		const { publicKey, header } = signLikeOllama(
			"POST",
			"/api/chat",
			1_755_800_000,
		);
		const key = parseOllamaKey(publicKey);
		const signature = readCliSignature(
			header,
			"POST",
			"/api/chat?ts=1755800000",
		);
		if (key === undefined || signature === undefined || signature === "no-time")
			throw new Error("not read");
		t.equal(signature.timeMs, 1_755_800_000_000);
		t.equal(signature.publicKey, publicKey);
		t.ok(isSignedBy(signature, key));
		const others: [string, string][] = [
			["GET", "/api/chat?ts=1755800000"],
			["POST", "/api/generate?ts=1755800000"],
			["POST", "/api/chat?ts=1755800001"],
			["POST", "//api/chat?ts=1755800000"],
			["post", "/api/chat?ts=1755800000"],
		];
		for (const [method, target] of others) {
			const other = readCliSignature(header, method, target);
			t.notOk(
				other === undefined || other === "no-time" || isSignedBy(other, key),
				`${method} ${target}`,
			);
		}
		const stranger = parseOllamaKey(
			signLikeOllama("POST", "/", 1, "another").publicKey,
		);
		t.notOk(
			stranger === undefined || isSignedBy(signature, stranger),
			"another key",
		);
	},
);

t.test("a signature's time stands alone in the query", async (t) => {
	const { header } = signLikeOllama("GET", "/api/tags", 1);
	for (const target of [
		"/api/tags",
		"/api/tags?",
		"/api/tags?ts=",
		"/api/tags?ts=1&x=2",
		"/api/tags?x=2&ts=1",
		"/api/tags?ts=1&ts=2",
		"/api/tags?ts=%31",
		"/api/tags?ts=1.5",
		"/api/tags?ts=-1",
		"/api/tags?TS=1",
		"/api/tags?ts=1#",
		"/api/tags??ts=1",
		"/api/tags?ts=9999999999999",
	])
		t.equal(readCliSignature(header, "GET", target), "no-time", target);
});

t.test("what has another form is no signature", async (t) => {
	const { header } = signLikeOllama("GET", "/", 1);
	for (const value of [
		"",
		"Bearer x",
		header.replace(":", " "),
		`${header}=`,
		` ${header}`,
		header.slice(1),
		header.replace("==", ""),
		`Bearer ${header}`,
		header.toLowerCase().slice(0, 60),
	])
		t.equal(
			readCliSignature(value, "GET", "/?ts=1"),
			undefined,
			value.slice(0, 30),
		);
});

t.test("only an ed25519 public key is taken for one", async (t) => {
	const { publicKey } = signLikeOllama("GET", "/", 1);
	t.ok(parseOllamaKey(publicKey));
	for (const text of [
		"",
		publicKey.slice(1),
		`${publicKey}A`,
		publicKey.replace("AAAAC3", "AAAAB3"),
		`ssh-ed25519 ${publicKey}`,
		"A".repeat(68),
	])
		t.equal(parseOllamaKey(text), undefined, text.slice(0, 20));
});

t.test("keys and signatures of OpenSSH's are the same ones", async (t) => {
	if (!requireTool(t, "ssh-keygen")) return;
	const file = path.join(await temporaryFolder(t), "id_ed25519");
	execFileSync("ssh-keygen", [
		"-q",
		"-t",
		"ed25519",
		"-N",
		"",
		"-C",
		"me@laptop",
		"-f",
		file,
	]);
	const [, publicKey = ""] = readFileSync(`${file}.pub`, "utf8").split(" ");
	const key = parseOllamaKey(publicKey);
	t.equal(key?.asymmetricKeyType, "ed25519");
	// OpenSSH's private key holds the seed; with it Node signs what ssh would.
	const blob = Buffer.from(
		readFileSync(file, "utf8").replace(/-----[^-]+-----|\s/g, ""),
		"base64",
	);
	const raw = Buffer.from(publicKey, "base64").subarray(-32);
	const pairAt = blob.lastIndexOf(
		Buffer.concat([raw, Buffer.from("000000096d65406c6170746f70", "hex")]),
	);
	const seed = blob.subarray(pairAt - 32, pairAt);
	const privateKey = createPrivateKey({
		key: Buffer.concat([
			Buffer.from("302e020100300506032b657004220420", "hex"),
			seed,
		]),
		format: "der",
		type: "pkcs8",
	});
	const made = sign(
		null,
		Buffer.from("GET,/api/tags?ts=7"),
		privateKey,
	).toString("base64");
	const signature = readCliSignature(
		`${publicKey}:${made}`,
		"GET",
		"/api/tags?ts=7",
	);
	if (key === undefined || signature === undefined || signature === "no-time")
		throw new Error("not read");
	t.ok(isSignedBy(signature, key));
	// And the other way round: what the tests make, OpenSSH takes for a key.
	const madeFile = path.join(path.dirname(file), "made.pub");
	writeFileSync(
		madeFile,
		`ssh-ed25519 ${signLikeOllama("GET", "/", 1).publicKey} test\n`,
	);
	t.match(
		execFileSync("ssh-keygen", ["-l", "-f", madeFile], { encoding: "utf8" }),
		/^256 SHA256:\S+ test \(ED25519\)/,
	);
});

t.test(
	"equal requests of one second pass, a storm of them does not, and old ones are forgotten",
	async (t) => {
		const uses = new SignatureUses();
		const one = {
			publicKey: "",
			signature: "a",
			challenge: "",
			timeMs: 1_000_000,
		};
		for (let i = 0; i < maxUses; i++) t.ok(uses.take(one, 1_000_000 + i));
		t.notOk(uses.take(one, 1_000_100));
		t.notOk(uses.take(one, 1_030_000), "as long as its time is good");
		t.ok(
			uses.take({ ...one, signature: "b" }, 1_000_100),
			"another is not touched",
		);
		uses.take({ ...one, signature: "c", timeMs: 2_000_000 }, 2_000_000);
		t.equal(uses.size, 1, "what is stale anyway is not kept");
	},
);
