import { once } from "node:events";
import { connect, type Socket } from "node:net";
import t from "tap";
import {
	bearer,
	isWholeReply,
	spawnGate,
	startGate,
	testKeys,
} from "../support/gate.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

const chat = (url: string, tokens: number) =>
	fetch(`${url}/api/chat`, {
		method: "POST",
		headers: bearer(testKeys.user),
		body: JSON.stringify({
			model: "qwen3:8b",
			messages: [{ role: "user", content: "a" }],
			options: { num_predict: tokens },
		}),
	});

t.test(
	"SIGTERM closes the door, lets a stream finish, and exits 0",
	async (t) => {
		const gate = await spawnGate(t, {
			standIn: { tokenIntervalMs: 10 },
			config: { drainTimeout: "30s" },
		});
		const response = await chat(gate.url, 50);
		gate.child.kill("SIGTERM");
		await gate.logged(({ msg }) => msg === "stopping");
		const socket = connect(gate.port, "127.0.0.1");
		const [error] = await once(socket, "error");
		t.equal(error.code, "ECONNREFUSED", "nobody new gets in");
		t.match(await response.text(), /"done":true/, "the stream came to its end");
		t.equal(await gate.exited, 0);
		t.match(gate.log.at(-1), { msg: "stopped" });
	},
);

t.test(
	"a stream that outlasts drainTimeout is cut with an error in the stream",
	async (t) => {
		const gate = await spawnGate(t, {
			standIn: { tokenIntervalMs: 10 },
			config: { drainTimeout: "200ms" },
		});
		const response = await chat(gate.url, 1_000_000);
		gate.child.kill("SIGTERM");
		let text = "";
		await t.rejects(async () => {
			if (response.body === null) return;
			const decoder = new TextDecoder();
			for await (const chunk of response.body)
				text += decoder.decode(chunk, { stream: true });
		}, "it does not end cleanly");
		t.match(text, /\n\{"error":"llamagate is shutting down"\}\n$/);
		t.equal(await gate.exited, 0);
	},
);

t.test("a second SIGTERM does not wait", async (t) => {
	const gate = await spawnGate(t, {
		standIn: { tokenIntervalMs: 10 },
		config: { drainTimeout: "1h" },
	});
	const response = await chat(gate.url, 1_000_000);
	gate.child.kill("SIGTERM");
	await gate.logged(({ msg }) => msg === "stopping");
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
	await t.rejects(response.text());
});

t.test("idle keep-alive connections do not hold a stop up", async (t) => {
	const gate = await spawnGate(t, { config: { drainTimeout: "1h" } });
	const response = await fetch(`${gate.url}/api/tags`, {
		headers: bearer(testKeys.user),
	});
	await response.text();
	const silent = connect(gate.port, "127.0.0.1");
	await once(silent, "connect");
	silent.on("error", () => {});
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
});

const tags = `GET /api/tags HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${testKeys.user}\r\n\r\n`;

/** Reads one reply from an open connection. */
async function replyTo(socket: Socket, request: string): Promise<string> {
	let reply = "";
	const { promise, resolve, reject } = Promise.withResolvers<void>();
	const take = (text: string) => {
		reply += text;
		if (isWholeReply(reply)) resolve();
	};
	const gone = () => reject(new Error("it was closed without a reply"));
	socket.on("data", take).once("close", gone).once("error", gone);
	socket.write(request);
	await promise;
	socket.off("data", take).off("close", gone).off("error", gone);
	return reply;
}

async function open(t: Teardown, port: number): Promise<Socket> {
	const socket = connect(port, "127.0.0.1").setEncoding("latin1");
	socket.on("error", () => {});
	t.teardown(() => socket.destroy());
	await once(socket, "connect");
	return socket;
}

t.test(
	"a request that was on its way on an open connection when the gate was told to stop is served, and told to go elsewhere",
	async (t) => {
		const gate = await startGate(t, { config: { drainTimeout: "10m" } });
		const fresh = await open(t, gate.port);
		const kept = await open(t, gate.port);
		t.match(await replyTo(kept, tags), /^HTTP\/1.1 200 /);
		// Connections are accepted in their order, so the gate has the other too.
		const stopped = gate.daemon.stop(120_000);
		for (const socket of [kept, fresh]) {
			const closed = once(socket, "close");
			const reply = await replyTo(socket, tags);
			t.match(reply, /^HTTP\/1.1 200 /);
			t.match(reply, /^connection: close/im);
			await closed;
		}
		await stopped;
		t.pass("nothing was left to wait for");
	},
);

t.test("an idle connection is held for a moment only", async (t) => {
	const gate = await startGate(t, { config: { drainTimeout: "10m" } });
	const kept = await open(t, gate.port);
	await replyTo(kept, tags);
	const closed = once(kept, "close");
	await gate.daemon.stop(50);
	await closed;
	t.pass("the gate has closed it");
});

t.test(
	"what comes in the second half of drainTimeout is refused",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { tokenIntervalMs: 1_000 },
			config: { drainTimeout: "2s" },
		});
		const body = JSON.stringify({ model: "qwen3:8b", prompt: "a" });
		const stream = `${tags.replace("GET /api/tags", "POST /api/generate").trimEnd()}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
		const sockets = await Promise.all(
			Array.from({ length: 30 }, () => open(t, gate.port)),
		);
		for (const socket of sockets) {
			socket.write(stream);
			await once(socket, "data");
			socket.resume();
		}
		const stopped = gate.daemon.stop(60_000);
		// Each waits behind the stream for its reply, and was judged when it came.
		const asking = setInterval(() => sockets.pop()?.write(tags), 100);
		t.teardown(() => clearInterval(asking));
		await stopped;
		const statuses = gate.log
			.filter(({ route }) => route === "GET /api/tags")
			.map(({ status, reason }) => `${status} ${reason ?? ""}`.trim());
		t.same(new Set(statuses), new Set(["200", "503 shutdown"]));
	},
);
