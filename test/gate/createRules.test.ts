import { createHash, randomBytes } from "node:crypto";
import { connect } from "node:net";
import t from "tap";
import { Uploads } from "../../src/gate/uploads.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { bearer, startGate, testEntries, testKeys } from "../support/gate.ts";

const restricted = (models: readonly string[]) => ({
	name: "restricted",
	sha256: digestOf(testKeys.user),
	scopes: ["read", "infer", "manage"] as const,
	models,
});

const digestOfFile = (file: Buffer) =>
	`sha256:${createHash("sha256").update(file).digest("hex")}`;

async function start(
	t: Parameters<typeof startGate>[0],
	{ models = ["*"], blobs = [] as string[] } = {},
) {
	const gate = await startGate(t, {
		standIn: { blobs },
		keys: [
			restricted(models),
			...testEntries.filter(({ name }) => name !== "user"),
		],
	});
	const call = async (
		method: string,
		path: string,
		body?: object | Buffer,
		key: string = testKeys.user,
	) => {
		const response = await fetch(`${gate.url}${path}`, {
			method,
			headers: bearer(key),
			...(body === undefined
				? {}
				: {
						body: Buffer.isBuffer(body)
							? new Uint8Array(body)
							: JSON.stringify(body),
					}),
		});
		return { status: response.status, text: await response.text() };
	};
	const create = (body: object, key?: string) =>
		call("POST", "/api/create", body, key);
	return { gate, call, create };
}

t.test(
	"a model that runs at ollama.com is made by keys that may use it there",
	async (t) => {
		const { gate, create } = await start(t);
		for (const body of [
			{ from: "gpt-oss:120b-cloud" },
			{ from: "gpt-oss:120b", remote_host: "https://ollama.com" },
			{ from: "qwen3:8b", remote_host: "http://10.0.0.1:11434" },
			{ from: "qwen3:8b:local", remote_host: "ollama.com" },
		])
			t.equal(
				(await create({ model: "mine", ...body })).status,
				403,
				JSON.stringify(body),
			);
		for (const [more, status] of [
			['"REMOTE_HOST":"ollama.com"', 400],
			['"remote_host":{}', 403],
			['"remote_host":"","remote_ho\\u0073t":"ollama.com"', 400],
		] as const) {
			const response = await fetch(`${gate.url}/api/create`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: `{"model":"mine","from":"qwen3:8b",${more}}`,
			});
			await response.text();
			t.equal(response.status, status, more);
		}
		t.equal(gate.standIn.calls.length, 0, "none reached Ollama");
		for (const more of [{}, { remote_host: "" }, { remote_host: null }])
			t.equal(
				(await create({ model: "mine", from: "qwen3:8b", ...more })).status,
				200,
				JSON.stringify(more),
			);
		const owner = await create(
			{
				model: "mine",
				from: "gpt-oss:120b",
				remote_host: "https://ollama.com",
			},
			testKeys.owner,
		);
		t.equal(owner.status, 200, "a key without models may");

		const cloud = await start(t, { models: ["*", "gpt-oss:*-cloud"] });
		const body = { model: "mine", remote_host: "https://ollama.com" };
		t.equal(
			(await cloud.create({ ...body, from: "gpt-oss:120b" })).status,
			200,
		);
		t.equal((await cloud.create({ ...body, from: "kimi:1t" })).status, 403);
	},
);

t.test(
	"a key with models makes models of files that it has sent itself",
	async (t) => {
		const others = randomBytes(100);
		const { gate, call, create } = await start(t, {
			blobs: [digestOfFile(others)],
		});
		const mine = randomBytes(300_000);
		const withFile = (digest: string, field = "files") =>
			create({
				model: "mine",
				from: "qwen3:8b",
				[field]: { "a.gguf": digest },
			});

		t.equal(
			(await call("HEAD", `/api/blobs/${digestOfFile(others)}`)).status,
			404,
			"it is not told which files there are",
		);
		for (const field of ["files", "adapters", "draft_files"]) {
			const refused = await withFile(digestOfFile(others), field);
			t.equal(refused.status, 403, field);
			t.match(refused.text, /send it again/);
		}
		t.equal(gate.standIn.calls.length, 0, "nothing reached Ollama");

		const path = `/api/blobs/${digestOfFile(mine)}`;
		t.equal((await call("POST", path, mine)).status, 201);
		t.equal((await call("HEAD", path)).status, 200);
		for (const digest of [
			digestOfFile(mine),
			digestOfFile(mine).replace(":", "-"),
		])
			t.equal((await withFile(digest)).status, 200, digest);
		t.equal(
			(
				await create({
					model: "mine",
					files: { a: digestOfFile(mine), b: digestOfFile(others) },
				})
			).status,
			403,
			"all of them count",
		);
		const odd = await create({ model: "mine", files: { a: 7 } });
		t.equal(odd.status, 403);
	},
);

t.test("a file that Ollama has already is sent all the same", async (t) => {
	// Ollama answers such an upload before it has read it.
	for (const sizeBytes of [1_000, 3_000_000]) {
		const file = randomBytes(sizeBytes);
		const { call, create } = await start(t, { blobs: [digestOfFile(file)] });
		const path = `/api/blobs/${digestOfFile(file)}`;
		t.equal((await call("POST", path, file)).status, 200);
		t.equal((await call("HEAD", path)).status, 200);
		t.equal(
			(await create({ model: "mine", files: { a: digestOfFile(file) } }))
				.status,
			200,
			`${sizeBytes}`,
		);
	}
});

t.test("what is not the file does not count as it", async (t) => {
	const file = randomBytes(200_000);
	const { call, create, gate } = await start(t, {
		blobs: [digestOfFile(file)],
	});
	const path = `/api/blobs/${digestOfFile(file)}`;
	for (const other of [Buffer.alloc(0), randomBytes(200_000)])
		t.equal((await call("POST", path, other)).status, 200);
	// One that is broken off.
	const socket = connect(gate.port, "127.0.0.1");
	socket.write(
		`POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${testKeys.user}\r\ncontent-length: ${file.length}\r\n\r\n`,
	);
	socket.write(file.subarray(0, 150_000));
	const arrived = gate.standIn.calls.length;
	while (gate.standIn.calls.length === arrived)
		await new Promise((resolve) => gate.standIn.events.once("call", resolve));
	socket.destroy();
	await gate.logged(
		({ route, outcome }) =>
			route === "POST /api/blobs/:digest" && outcome === "client_gone",
	);
	t.equal(
		(await create({ model: "mine", files: { a: digestOfFile(file) } })).status,
		403,
	);
});

t.test("files of one key are not another's", async (t) => {
	const file = randomBytes(1_000);
	const { call, create } = await start(t);
	const path = `/api/blobs/${digestOfFile(file)}`;
	t.equal((await call("POST", path, file, testKeys.owner)).status, 201);
	const body = { model: "mine", files: { a: digestOfFile(file) } };
	t.equal((await create(body)).status, 403);
	t.equal((await create(body, testKeys.owner)).status, 200);
	t.equal(
		(await call("HEAD", path, undefined, testKeys.owner)).status,
		200,
		"a key without models sees them all",
	);
});

t.test("what is remembered of files has a bound", async (t) => {
	const uploads = new Uploads();
	for (let i = 0; i <= 1024; i++) uploads.add("a", `sha256:${i}`);
	t.notOk(uploads.has("a", "sha256:0"), "the oldest is forgotten");
	t.ok(uploads.has("a", "sha256:1"));
	t.ok(uploads.has("a", "sha256-1024"));
	for (let i = 0; i < 63; i++) uploads.add(`key ${i}`, "sha256:1");
	t.ok(uploads.has("a", "sha256:1"));
	uploads.add("one more", "sha256:1");
	t.notOk(
		uploads.has("a", "sha256:1"),
		"and so is the key that sent longest ago",
	);
});
