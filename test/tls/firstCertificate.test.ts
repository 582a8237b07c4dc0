import { once } from "node:events";
import { connect as connectTls, type TLSSocket } from "node:tls";
import t from "tap";
import { type Certificate, readPair } from "../../src/tls/certificate.ts";
import {
	type IssuedPair,
	issueFor,
	makeAuthority,
	ownName,
	pemOf,
} from "../support/certificates.ts";
import { eventually, startGate, type TestGate } from "../support/gate.ts";
import { startKeeper } from "../support/keeper.ts";
import { startLocalApi } from "../support/localApi.ts";
import { requireTool } from "../support/tools.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** They are not read: what they hold is given. */
const files = {
	kind: "files",
	certFile: "/a.crt",
	keyFile: "/a.key",
	name: ownName,
} as const;

if (requireTool(t, "openssl")) {
	const authority = await makeAuthority(t);
	const pair = await authority.issue();
	const issue = (days: number) => issueFor(authority, days);

	/** A gate that takes its certificate from a tailscaled that answers once the test releases it. */
	const startWaiting = async (t: Parameters<typeof startGate>[0]) => {
		const api = await startLocalApi(t);
		const isForCert = (path: string) => path.includes("/cert/");
		api.misbehave = ({ path }) => (isForCert(path) ? "hold" : undefined);
		const gate = await startGate(t, {
			config: {
				listen: { tls: "tailscale" },
				identity: { mode: "off", socket: api.socket },
			},
		});
		await eventually(() => api.calls.some(({ path }) => isForCert(path)));
		return { api, gate };
	};
	/** Once it has been answered, the gate has read what others sent before it. */
	const askPlainly = async ({ url }: TestGate) =>
		(await fetch(url)).status === 400;
	const shake = ({ port }: TestGate): TLSSocket => {
		const { ca } = authority;
		return connectTls({ host: "127.0.0.1", port, ca, servername: ownName });
	};

	t.test(
		"who connects while the first certificate is asked for is served with it",
		async (t) => {
			const { api, gate } = await startWaiting(t);
			api.certs.set(ownName, pemOf(pair));
			const clients = Array.from({ length: 5 }, () => shake(gate));
			const encrypted = clients.map((one) => once(one, "secureConnect"));
			await Promise.all(clients.map((one) => once(one, "connect")));
			t.ok(await askPlainly(gate));
			api.release();
			await Promise.all(encrypted);
			for (const one of clients) {
				t.ok(one.authorized);
				one.destroy();
			}
		},
	);

	t.test(
		"who waits for a certificate that is not to be had is closed, and so is who comes then",
		async (t) => {
			const { api, gate } = await startWaiting(t);
			api.certs.set(ownName, { status: 500, text: "not now" });
			const early = shake(gate);
			const closed = once(early, "error");
			await once(early, "connect");
			t.ok(await askPlainly(gate));
			api.release();
			t.match((await closed)[0], { code: "ECONNRESET" });
			const [late] = await once(shake(gate), "error");
			t.match(late, { code: "ECONNRESET" });
			await eventually(() =>
				gate.log.some(({ event }) => event === "certificate_refused"),
			);
		},
	);

	/** What a gate has read of its files, and follows from its start on. */
	const loadedOf = (pair: IssuedPair): Certificate => {
		const read = readPair(
			pair.cert,
			pair.key,
			{ dnsNames: [ownName], addresses: [] },
			Date.now(),
		);
		if ("of" in read) throw new Error(read.message);
		return read;
	};

	t.test(
		"what files held stays in force until tailscaled has given its own",
		async (t) => {
			const api = await startLocalApi(t);
			api.certs.set(ownName, { status: 500, text: "not now" });
			const old = await issue(30);
			const { keeper, clock, used, current, look, log } = startKeeper(t);
			keeper.follow(files, loadedOf(old), api.socket);
			keeper.follow({ kind: "tailscale" }, undefined, api.socket);
			await look();
			t.equal(current()?.cert, old.cert);
			t.equal(used.length, 1);
			t.match(keeper.status(), { source: "files", problem: /not now/ });
			t.ok((clock.nextMs() ?? 0) <= 2_000, "it is soon asked again");
			clock.skip(20 * dayMs);
			await look();
			t.match(
				log.find(({ event }) => event === "certificate_ends"),
				{ why: /not now/ },
				"its end is told of",
			);
			const own = await issue(90);
			api.certs.set(ownName, pemOf(own));
			await look();
			t.equal(current()?.cert, pemOf(own));
			t.match(keeper.status(), { source: "tailscale", problem: null });
			t.equal(clock.nextMs(), hourMs);
		},
	);

	t.test(
		"tailscaled's certificate that files held before is its own from then on",
		async (t) => {
			const api = await startLocalApi(t);
			const pair = await issue(90);
			api.certs.set(ownName, pemOf(pair));
			const { keeper, clock, look } = startKeeper(t);
			keeper.follow(files, loadedOf(pair), api.socket);
			keeper.follow({ kind: "tailscale" }, undefined, api.socket);
			await look();
			t.match(keeper.status(), { source: "tailscale", problem: null });
			t.equal(clock.nextMs(), hourMs, "and not renewed before its time");
		},
	);
}
