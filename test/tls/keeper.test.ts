import { rename, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import type { TlsSettings } from "../../src/config/tls.ts";
import {
	issueFor,
	makeAuthority,
	ownName,
	pemOf,
} from "../support/certificates.ts";
import { temporaryFolder } from "../support/gate.ts";
import { startKeeper } from "../support/keeper.ts";
import { runningStatus, startLocalApi } from "../support/localApi.ts";
import { requireTool } from "../support/tools.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

const tailscale: TlsSettings = { kind: "tailscale" };

if (requireTool(t, "openssl")) {
	const authority = await makeAuthority(t);
	const issue = (days: number) => issueFor(authority, days);

	t.test("tailscaled's certificate is renewed in its last third", async (t) => {
		const api = await startLocalApi(t);
		const first = await issue(90);
		api.certs.set(ownName, pemOf(first));
		const { keeper, clock, used, current, look, log } = startKeeper(t);
		keeper.follow(tailscale, undefined, api.socket);
		t.same(used, ["coming"], "until it is there, connections wait");
		await look();
		used.splice(0, used.length - 1);
		t.equal(current()?.cert, pemOf(first));
		t.match(keeper.status(), { source: "tailscale", problem: null });
		t.equal(clock.nextMs(), hourMs, "the node may be renamed");
		const asked = () =>
			api.calls.filter(({ path }) => path.includes("/cert/")).length;
		clock.skip(59 * dayMs);
		await look();
		t.equal(asked(), 1, "and is not asked for before that");

		clock.skip(2 * dayMs);
		await look();
		t.equal(asked(), 2);
		t.equal(used.length, 1, "what tailscaled has is not newer yet");
		const waitMs = clock.nextMs() ?? 0;
		t.ok(waitMs >= 5 * 60_000 && waitMs <= 600_000, "so it is asked again");
		t.notOk(log.some(({ level }) => level === "error"));
		await look();
		t.ok((clock.nextMs() ?? 0) > waitMs, "less and less often");

		const second = await issue(180);
		api.certs.set(ownName, pemOf(second));
		await look();
		t.equal(current()?.cert, pemOf(second));
		t.equal(clock.nextMs(), hourMs);
	});

	t.test("a node that is renamed gets another certificate", async (t) => {
		const api = await startLocalApi(t);
		api.certs.set(ownName, pemOf(await issue(90)));
		const { keeper, current, look } = startKeeper(t);
		keeper.follow(tailscale, undefined, api.socket);
		await look();
		const renamed = "gpu.tail1234.ts.net";
		const status = runningStatus();
		api.status = {
			...status,
			Self: { ...(status.Self as object), DNSName: `${renamed}.` },
		};
		api.certs.set(renamed, pemOf(await authority.issue({ names: [renamed] })));
		await look();
		t.same(current()?.names, [renamed]);
	});

	const problems: [string, number, string, RegExp][] = [
		[
			"a tailnet without certificates",
			500,
			"your Tailscale account does not support getting TLS certs",
			/enable HTTPS certificates on the DNS page.*Headscale has none: name files/,
		],
		[
			"a user that tailscaled does not trust with keys",
			403,
			"cert access denied",
			/put TS_PERMIT_CERT_UID=\S+ into \/etc\/default\/tailscaled, then: sudo systemctl restart tailscaled/,
		],
	];
	for (const [what, status, text, expected] of problems)
		t.test(`${what}: it says what to do, and tries again`, async (t) => {
			const api = await startLocalApi(t);
			api.certs.set(ownName, { status, text });
			const { keeper, clock, look, log, used } = startKeeper(t);
			keeper.follow(tailscale, undefined, api.socket);
			await look();
			t.equal(used.at(-1), undefined, "connections are closed");
			t.match(keeper.status()?.problem, expected);
			const waits = [clock.nextMs() ?? 0];
			for (let turn = 0; turn < 12; turn++) {
				await look();
				waits.push(clock.nextMs() ?? 0);
			}
			t.ok((waits[0] ?? 0) <= 2_000);
			t.same(
				waits,
				waits.toSorted((a, b) => a - b),
			);
			t.ok((waits.at(-1) ?? 0) <= 300_000);
			t.equal(
				log.filter(({ event }) => event === "certificate_refused").length,
				1,
				"it is said once",
			);
			api.certs.set(ownName, pemOf(await issue(90)));
			await look();
			t.match(keeper.status(), {
				names: [ownName, "127.0.0.1"],
				problem: null,
			});
		});

	t.test(
		"what tailscaled gives is judged, and what was in force stays",
		async (t) => {
			const api = await startLocalApi(t);
			const good = await issue(90);
			api.certs.set(ownName, pemOf(good));
			const { keeper, clock, current, look, log } = startKeeper(t);
			keeper.follow(tailscale, undefined, api.socket);
			await look();
			const other = await authority.issue({ names: ["other.example.com"] });
			api.certs.set(ownName, pemOf(other));
			clock.skip(80 * dayMs);
			await look();
			t.equal(current()?.cert, pemOf(good));
			t.match(keeper.status()?.problem, /is for other\.example\.com/);
			t.match(
				log.find(({ event }) => event === "certificate_ends"),
				{ msg: /ends within 14 days/, why: /other\.example\.com/ },
			);
			await api.close();
			await look();
			t.equal(current()?.cert, pemOf(good));
			t.match(keeper.status()?.problem, /tailscaled/);
		},
	);

	t.test(
		"once the certificate has ended, tailscaled is asked again within minutes",
		async (t) => {
			const api = await startLocalApi(t);
			api.certs.set(ownName, pemOf(await issue(90)));
			const { keeper, clock, current, look, log } = startKeeper(t);
			keeper.follow(tailscale, undefined, api.socket);
			await look();
			const endMs = current()?.notAfterMs ?? 0;
			api.certs.set(ownName, { status: 500, text: "no way out" });
			clock.skip(85 * dayMs);
			while (clock.nowMs() < endMs) {
				await look();
				t.ok(
					clock.nowMs() >= endMs ||
						clock.nowMs() + (clock.nextMs() ?? 0) <= endMs,
					"it is not slept through",
				);
			}
			t.equal(clock.nowMs(), endMs);
			for (let turn = 0; turn < 5; turn++) {
				const waitMs = clock.nextMs() ?? 0;
				t.ok(waitMs >= 60_000 && waitMs <= 300_000, `${waitMs} ms`);
				await look();
			}
			t.equal(
				log.filter(({ event }) => event === "certificate_refused").length,
				1,
			);
			const next = await authority.issue({
				from: new Date(Date.now() - hourMs),
				to: new Date(Date.now() + 180 * dayMs),
			});
			api.certs.set(ownName, pemOf(next));
			await look();
			t.equal(current()?.cert, pemOf(next));
		},
	);

	async function startFiles(t: { teardown(action: () => unknown): unknown }) {
		const folder = await temporaryFolder(t);
		const files = {
			kind: "files",
			certFile: path.join(folder, "gate.crt"),
			keyFile: path.join(folder, "gate.key"),
			name: ownName,
		} as const;
		const put = async (file: string, text: string) => {
			await writeFile(`${file}.new`, text, { mode: 0o600 });
			await rename(`${file}.new`, file);
		};
		return { files, put };
	}

	t.test("files that have changed are in force once both are", async (t) => {
		const { files, put } = await startFiles(t);
		const first = await issue(90);
		await put(files.certFile, first.cert);
		await put(files.keyFile, first.key);
		const { keeper, used, current, look, log } = startKeeper(t);
		keeper.follow(files, undefined, "");
		await look();
		await look();
		t.equal(current()?.cert, first.cert);
		const second = await issue(120);
		await put(files.certFile, second.cert);
		await look();
		await put(files.keyFile, second.key);
		await look();
		t.equal(current()?.cert, first.cert, "they may still be written");
		await look();
		t.equal(current()?.cert, second.cert);
		t.equal(used.length, 3);
		t.notOk(log.some(({ level }) => level === "error"));
	});

	t.test(
		"certificates that vouch for the same one are in force once they are put behind it",
		async (t) => {
			const { files, put } = await startFiles(t);
			const pair = await issue(90);
			await put(files.certFile, pair.cert);
			await put(files.keyFile, pair.key);
			const { keeper, used, current, look } = startKeeper(t);
			keeper.follow(files, undefined, "");
			for (let turn = 0; turn < 2; turn++) await look();
			const whole = `${pair.cert}${authority.ca}`;
			await put(files.certFile, whole);
			for (let turn = 0; turn < 2; turn++) await look();
			t.equal(current()?.cert, whole);
			await put(files.certFile, whole);
			for (let turn = 0; turn < 2; turn++) await look();
			t.equal(used.length, 3, "the same once more is not new");
		},
	);

	t.test(
		"files that would not do are said once, and the old stay in force",
		async (t) => {
			const { files, put } = await startFiles(t);
			const first = await issue(90);
			await put(files.certFile, first.cert);
			await put(files.keyFile, first.key);
			const { keeper, current, look, log } = startKeeper(t);
			keeper.follow(files, undefined, "");
			for (let turn = 0; turn < 2; turn++) await look();
			await put(files.keyFile, "rubbish");
			for (let turn = 0; turn < 4; turn++) await look();
			t.equal(current()?.cert, first.cert);
			t.match(keeper.status()?.problem, /gate\.key.*\n.*holds no private key/);
			t.equal(
				log.filter(({ event }) => event === "certificate_refused").length,
				1,
			);
			await put(files.keyFile, first.key);
			for (let turn = 0; turn < 2; turn++) await look();
			t.equal(keeper.status()?.problem, null);
		},
	);

	t.test(
		"a pair that is put there too early is in force once it is valid, and said once until then",
		async (t) => {
			const { files, put } = await startFiles(t);
			const first = await issue(90);
			await put(files.certFile, first.cert);
			await put(files.keyFile, first.key);
			const { keeper, clock, current, look, log } = startKeeper(t);
			keeper.follow(files, undefined, "");
			for (let turn = 0; turn < 2; turn++) await look();
			const second = await authority.issue({
				from: new Date(Date.now() + dayMs),
				to: new Date(Date.now() + 90 * dayMs),
			});
			await put(files.certFile, second.cert);
			await put(files.keyFile, second.key);
			for (let turn = 0; turn < 5; turn++) await look();
			t.equal(current()?.cert, first.cert);
			t.match(keeper.status()?.problem, /is not valid before/);
			t.equal(
				log.filter(({ event }) => event === "certificate_refused").length,
				1,
			);
			clock.skip(dayMs);
			await look();
			t.equal(current()?.cert, second.cert);
			t.equal(keeper.status()?.problem, null);
		},
	);

	t.test("files that were away and are back are good again", async (t) => {
		const { files, put } = await startFiles(t);
		const pair = await issue(90);
		await put(files.certFile, pair.cert);
		await put(files.keyFile, pair.key);
		const { keeper, current, look } = startKeeper(t);
		keeper.follow(files, undefined, "");
		for (let turn = 0; turn < 2; turn++) await look();
		const folder = path.dirname(files.certFile);
		await rename(folder, `${folder}-away`);
		for (let turn = 0; turn < 2; turn++) await look();
		t.match(keeper.status()?.problem, /gate\.crt does not exist/);
		await rename(`${folder}-away`, folder);
		for (let turn = 0; turn < 2; turn++) await look();
		t.equal(keeper.status()?.problem, null);
		t.equal(current()?.cert, pair.cert);
	});

	t.test(
		"a pair of another name is in force once the node has that name, and not because tailscaled is away",
		async (t) => {
			const { files, put } = await startFiles(t);
			const unnamed = { ...files, name: undefined };
			const renamed = "gpu.tail1234.ts.net";
			const next = await authority.issue({ names: [renamed] });
			await put(files.certFile, next.cert);
			await put(files.keyFile, next.key);
			const api = await startLocalApi(t);
			const { keeper, current, look } = startKeeper(t);
			keeper.follow(unnamed, undefined, api.socket);
			for (let turn = 0; turn < 3; turn++) await look();
			api.misbehave = () => "no-backend";
			await look();
			t.equal(current(), undefined);
			t.match(keeper.status()?.problem, /clients call this node server\./);
			api.misbehave = () => undefined;
			const status = runningStatus();
			api.status = {
				...status,
				Self: { ...(status.Self as object), DNSName: `${renamed}.` },
			};
			await look();
			t.equal(current()?.cert, next.cert);
		},
	);

	t.test("a file that is about to end is told of every day", async (t) => {
		const { files, put } = await startFiles(t);
		const short = await issue(10);
		await put(files.certFile, short.cert);
		await put(files.keyFile, short.key);
		const { keeper, clock, look, log } = startKeeper(t);
		keeper.follow(files, undefined, "");
		const told = () =>
			log.filter(({ event }) => event === "certificate_ends").length;
		for (let turn = 0; turn < 5; turn++) await look();
		t.equal(told(), 1);
		clock.skip(dayMs);
		await look();
		t.equal(told(), 2);
		clock.skip(10 * dayMs);
		await look();
		t.match(log.at(-1), { msg: /has ended, and clients refuse it/ });
	});
}
