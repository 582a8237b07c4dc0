import { constants, zstdCompressSync } from "node:zlib";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { routes } from "../../src/ollama/routes.ts";
import { bearer, startGate, testEntries, testKeys } from "../support/gate.ts";

const some = {
	name: "some",
	sha256: digestOf(testKeys.user),
	models: ["qwen3:*"],
};

async function start(t: Parameters<typeof startGate>[0]) {
	const gate = await startGate(t, {
		keys: [some, ...testEntries.filter(({ name }) => name !== "user")],
	});
	const send = async (
		body: Buffer,
		{
			path = "/v1/chat/completions",
			key = testKeys.user as string,
			encoding = "zstd",
		} = {},
	) => {
		const response = await fetch(`${gate.url}${path}`, {
			method: "POST",
			headers: { ...bearer(key), "content-encoding": encoding },
			body: new Uint8Array(body),
		});
		return { status: response.status, text: await response.text() };
	};
	return { gate, send };
}

const chat = (model: string) =>
	JSON.stringify({ model, messages: [{ role: "user", content: "a" }] });
const packed = (text: string) => zstdCompressSync(Buffer.from(text));

t.test("a packed body is judged by what Ollama will read", async (t) => {
	const { gate, send } = await start(t);
	const allowed = packed(chat("qwen3:8b"));
	t.equal((await send(allowed)).status, 200);
	const [call] = gate.standIn.calls;
	t.strictSame(call?.body, allowed, "it goes on as it came");
	t.equal(call?.headers["content-encoding"], "zstd");

	const forbidden = packed(chat("llama3.2:3b"));
	t.equal((await send(forbidden)).status, 403);
	// Go's decoder reads frame behind frame as one text.
	const spaces = packed(" ");
	for (const body of [
		Buffer.concat([spaces, forbidden]),
		Buffer.concat([allowed, forbidden]),
		Buffer.concat([allowed, Buffer.from("x")]),
		Buffer.concat([
			Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]),
			forbidden,
		]),
		allowed.subarray(0, -3),
		Buffer.from(chat("qwen3:8b")),
		Buffer.alloc(0),
	]) {
		const { status, text } = await send(body);
		t.equal(status, 400);
		t.match(text, /zstd frame/);
	}
	for (const text of ['{"model":"qwen3:8b","MODEL":"x"}', '{"model":', ""])
		t.equal((await send(packed(text))).status, 400, text);
	t.equal(gate.standIn.calls.length, 1, "nothing else reached Ollama");
});

t.test("what a packed body may become has a bound", async (t) => {
	const { gate, send } = await start(t);
	const padded = (sizeBytes: number, params = {}) =>
		zstdCompressSync(
			Buffer.from(chat("qwen3:8b").replace("]", `]${" ".repeat(sizeBytes)}`)),
			{ params },
		);
	t.equal((await send(padded(20 * 2 ** 20 - 100))).status, 200);
	const bomb = await send(padded(20 * 2 ** 20));
	t.equal(bomb.status, 413);
	t.match(bomb.text, /at most 20971520 bytes unpacked/);
	const wide = padded(10 * 2 ** 20, {
		[constants.ZSTD_c_windowLog]: 24,
		[constants.ZSTD_c_contentSizeFlag]: 0,
	});
	t.equal((await send(wide)).status, 400, "a window wider than Ollama takes");
	t.equal(gate.standIn.calls.length, 1);
});

t.test("many packed bodies at once are each judged", async (t) => {
	const { send } = await start(t);
	const statuses = await Promise.all(
		Array.from({ length: 12 }, async (_, i) => {
			const { status } = await send(
				packed(chat(i % 2 === 0 ? "qwen3:8b" : "llama3.2:3b")),
			);
			return status;
		}),
	);
	t.strictSame(
		statuses,
		Array.from({ length: 12 }, (_, i) => (i % 2 === 0 ? 200 : 403)),
	);
});

t.test(
	"zstd goes where Ollama unpacks it, and nothing else does",
	async (t) => {
		const { gate, send } = await start(t);
		const key = testKeys.owner;
		for (const route of routes.filter(({ body }) => body === "inference")) {
			const before = gate.standIn.calls.length;
			const { status, text } = await send(packed(chat("qwen3:8b")), {
				path: route.path,
				key,
			});
			if (route.unpacksZstd) {
				t.not(status, 415, route.id);
				t.equal(gate.standIn.calls.length, before + 1, route.id);
			} else {
				t.equal(status, 415, route.id);
				t.match(text, /without a Content-Encoding/, route.id);
				t.equal(gate.standIn.calls.length, before, route.id);
			}
		}
		for (const encoding of ["gzip", "br", "ZSTD", "zstd, gzip", "gzip, zstd"])
			t.equal(
				(await send(packed(chat("qwen3:8b")), { key, encoding })).status,
				415,
				encoding,
			);
		t.equal(
			(await send(Buffer.from(chat("qwen3:8b")), { key, encoding: "identity" }))
				.status,
			200,
		);
	},
);
