import t from "tap";
import { testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	gateV6,
	joinTailnet,
	makeNamespace,
	type Namespace,
	network,
	ollama,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";

// Each test has networks of its own, and mostly waits.
t.jobs = 4;

/** Another program on the gate's IPv4 address and port. */
async function occupy(server: Namespace) {
	const child = server.start(
		process.execPath,
		"--eval",
		`require("net").createServer().listen(11434, "${addresses.server.v4}")`,
	);
	return { leave: () => child.kill("SIGKILL") };
}

t.test(
	"an address that another program holds leaves the other address, and is taken when it is free",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		await startStandInProcess(server);
		const occupier = await occupy(server);
		await becomes(t, server.listeners, [gateV4, ollama].sort(), "it is taken");

		const { log } = await startDaemon(t, server);
		const started = await log.seen(({ msg }) => msg === "started");
		t.strictSame(started.listening, [gateV6]);
		const key = testKeys.reader;
		t.equal((await ask(peer, gateV6, { key })).status, 200);
		const warning = await log.seen(({ address }) => address === gateV4);
		t.match(warning, { level: "warn", code: "EADDRINUSE", msg: /OLLAMA_HOST/ });

		occupier.leave();
		await log.seen(
			({ msg, address }) => msg === "listening" && address === gateV4,
		);
		t.equal((await ask(peer, gateV4, { key })).status, 200);
		t.equal((await ask(peer, gateV6, { key })).status, 200);
		const warnings = log.all.filter(({ code }) => code === "EADDRINUSE");
		t.equal(warnings.length, 1, "the log says it once, not at every attempt");
	},
);

t.test(
	"a gate that is told one address waits for it, and binds no other",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const { log } = await startDaemon(t, server, {
			listen: { address: addresses.server.v4 },
			upstream: { url: "http://127.0.0.1:11435" },
		});
		await log.seen(({ msg }) => msg === "started");
		t.strictSame(await server.listeners(), []);
		await joinTailnet(server, peer);
		await becomes(t, server.listeners, [gateV4], "the address is bound");
		t.equal((await ask(peer, gateV4)).status, 401);
	},
);

t.test(
	"a gate that is told one address ends with advice if another program holds it",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		await occupy(server);
		await becomes(t, server.listeners, [gateV4], "it is taken");
		const daemon = await startDaemon(t, server, {
			listen: { address: addresses.server.v4 },
		});
		const { code, stderr } = await daemon.ended();
		t.equal(code, 1);
		t.match(stderr, `cannot listen on ${gateV4}: the port is taken`);
		t.equal(stderr.trim().split("\n").length, 1, "one line, no stack");
	},
);
