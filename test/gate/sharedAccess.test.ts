import { execFile } from "node:child_process";
import { chmod, readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { loadRules } from "../../src/gate/rules.ts";
import { freePort } from "../support/freePort.ts";
import {
	bearer,
	eventually,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { sharesWith, startPair, stateOf } from "../support/gatePair.ts";
import { requireTool } from "../support/tools.ts";
import { requireValkey, startValkey } from "../support/valkey.ts";

const password = "0123456789abcdef".repeat(4);

t.test(
	"the user that docs/hosts.md makes may do what gates do, and no more",
	async (t) => {
		if (!requireValkey(t)) return;
		const text = await readFile("docs/hosts.md", "utf8");
		const line = /^user llamagate .*$/m.exec(text)?.[0] ?? "";
		const words = line.replace("PASSWORD", password).split(" ").slice(1);
		const valkey = await startValkey(t);
		t.equal(await valkey.command("ACL", "SETUSER", ...words), "+OK\r\n");
		await valkey.command("ACL", "SETUSER", "default", "off");
		const [one, other] = await startPair(t, valkey.url, {
			files: { "valkey.password": `${password}\n` },
			config: {
				state: { user: "llamagate", passwordFile: "valkey.password" },
				limits: { authFailures: { max: 2 } },
			},
		});
		const get = (url: string, key: string) =>
			fetch(`${url}/api/version`, { headers: bearer(key) });
		t.equal((await get(one.url, testKeys.user)).status, 200);
		t.equal((await get(one.url, testKeys.wrong)).status, 401);
		t.equal((await get(other.url, `${testKeys.wrong}0`)).status, 401);
		await eventually(
			async () => (await get(one.url, testKeys.user)).status === 429,
		);
		t.equal((await stateOf(one)).losses, 0);
		t.equal((await stateOf(other)).losses, 0);
	},
);

t.test(
	"a wrong password is told of, the gate keeps to its part, and no log has it",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t, {
			args: ["--requirepass", password],
			auth: [password],
		});
		const wrong = password.toUpperCase();
		const gate = await startGate(t, {
			files: { "valkey.password": wrong },
			config: {
				state: { url: valkey.url, passwordFile: "valkey.password" },
				limits: { perKey: { requestsPerMinute: 4 } },
			},
		});
		const { why } = await gate.logged(({ event }) => event === "state_away");
		t.equal(why, "it does not accept the user or the password");
		const replies = await Promise.all(
			[1, 2, 3, 4].map(() =>
				fetch(`${gate.url}/api/version`, { headers: bearer(testKeys.user) }),
			),
		);
		t.equal(replies.filter(({ status }) => status === 200).length, 2);
		t.notMatch(JSON.stringify(gate.log), wrong);
	},
);

t.test(
	"a password that others may read, or none, is refused with the file and what to do",
	async (t) => {
		const gate = await startGate(t, {
			files: { "valkey.password": password, "empty.password": "\n" },
		});
		const use = (passwordFile: string) =>
			gate.writeConfig({
				state: { url: "valkey://valkey:6379", passwordFile },
			});
		const file = path.join(gate.folder, "valkey.password");
		const refused = (message: RegExp) =>
			t.rejects(loadRules(gate.configFile), { message });
		await use("valkey.password");
		const { stateAccess } = await loadRules(gate.configFile);
		t.equal(stateAccess.password, password);
		await chmod(file, 0o644);
		await refused(
			/valkey\.password is not usable:\n.*others than its owner may read.*chmod 600/,
		);
		await use("empty.password");
		await refused(/holds no password.*openssl rand -hex 32/);
		await use("none.password");
		await refused(/none\.password does not exist.*chmod 600/);
	},
);

t.test(
	"by TLS Valkey must have a certificate of the one that is named",
	async (t) => {
		if (!requireValkey(t) || !requireTool(t, "openssl")) return;
		const folder = await temporaryFolder(t);
		const at = (name: string) => path.join(folder, name);
		await promisify(execFile)("openssl", [
			...["req", "-x509", "-newkey", "ec", "-pkeyopt"],
			...["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
			...["-subj", "/CN=valkey", "-addext", "subjectAltName=IP:127.0.0.1"],
			...["-keyout", at("key.pem"), "-out", at("cert.pem")],
		]);
		const tlsPort = await freePort();
		await startValkey(t, {
			args: [
				...["--tls-port", String(tlsPort), "--tls-auth-clients", "no"],
				...["--tls-cert-file", at("cert.pem"), "--tls-key-file", at("key.pem")],
			],
		});
		const url = `valkeys://127.0.0.1:${tlsPort}`;
		const ca = await readFile(at("cert.pem"), "utf8");
		const good = await startGate(t, {
			files: { "ca.pem": ca },
			config: { state: { url, caFile: "ca.pem" } },
		});
		await sharesWith(good, 1);
		const bad = await startGate(t, { config: { state: { url } } });
		const { why } = await bad.logged(({ event }) => event === "state_away");
		t.match(why, /SELF_SIGNED/);
		t.notOk((await stateOf(bad)).isConnected);
	},
);
