import { once } from "node:events";
import { readFile, rename, symlink, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import {
	bearer,
	spawnGate,
	startGate,
	temporaryFolder,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { ledgerPlace } from "../support/ledger.ts";
import {
	appKey,
	appSecret,
	claims,
	secretFile,
	sign,
	tokenHeader,
} from "../support/peopleTokens.ts";

type Test = Parameters<typeof ledgerPlace>[0];

const budget = { requests: 1_000_000, per: "day" } as const;
/** A gate with such a key asks the ledger before it lets anybody in. */
const entries: readonly KeyEntry[] = testEntries.map((entry) => ({
	...entry,
	budget,
}));
const text = (keys: readonly KeyEntry[]) => JSON.stringify({ keys });
const withoutUser = entries.filter(({ name }) => name !== "user");

/**
 * A ledger that a starting gate waits for, and that does something in this time,
 * once: the gate has read its files and has no admin socket yet.
 */
async function slowLedger(t: Test, change: () => Promise<void>) {
	const place = await ledgerPlace(t);
	let changed: Promise<void> | undefined;
	const server = createServer((socket) => {
		socket.on("error", () => {});
		changed ??= change();
		void changed.then(() => socket.destroy());
	});
	await once(server.listen(place.socket), "listening");
	t.teardown(() => server.close());
	return { ledger: place.section };
}

/** A keys file in a folder of the test's. */
async function keysFileIn(folder: string, name = "keys.json") {
	const file = path.join(folder, name);
	await writeFile(file, text(entries), { mode: 0o600 });
	return file;
}

async function replace(file: string, content: string): Promise<void> {
	await writeFile(`${file}.new`, content, { mode: 0o600 });
	await rename(`${file}.new`, file);
}

async function statusOf(url: string, headers: Record<string, string>) {
	const response = await fetch(`${url}/api/tags`, { headers });
	await response.arrayBuffer();
	return response.status;
}

t.test("a key that is revoked while the gate starts is no key", async (t) => {
	const keysFile = await keysFileIn(await temporaryFolder(t));
	const gate = await startGate(t, {
		config: {
			keysFile,
			...(await slowLedger(t, () => replace(keysFile, text(withoutUser)))),
		},
	});
	t.equal(await statusOf(gate.url, bearer(testKeys.user)), 401);
	t.equal(await statusOf(gate.url, bearer(testKeys.owner)), 200);
});

t.test("so is one behind a symbolic link that leads elsewhere", async (t) => {
	const folder = await temporaryFolder(t);
	const old = await keysFileIn(folder, "old.json");
	const next = path.join(folder, "next.json");
	await writeFile(next, text(withoutUser), { mode: 0o600 });
	const keysFile = path.join(folder, "keys.json");
	await symlink(old, keysFile);
	const gate = await startGate(t, {
		config: {
			keysFile,
			...(await slowLedger(t, async () => {
				await unlink(keysFile);
				await symlink(next, keysFile);
			})),
		},
	});
	t.equal(await statusOf(gate.url, bearer(testKeys.user)), 401);
});

t.test("so is one beside a configuration that was broken then", async (t) => {
	const folder = await temporaryFolder(t);
	const keysFile = await keysFileIn(folder);
	const gate = await spawnGate(t, {
		launcher: pidWriter(folder),
		config: {
			keysFile,
			...(await slowLedger(t, async () => {
				await writeFile(await configFileOf(folder), '{ "listn": {} }');
				await replace(keysFile, text(withoutUser));
			})),
		},
	});
	t.equal(await statusOf(gate.url, bearer(testKeys.user)), 401);
	t.equal(await statusOf(gate.url, bearer(testKeys.owner)), 200);
});

t.test("the secret of an app that is changed then is in force", async (t) => {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, secretFile);
	await writeFile(file, `${appSecret}\n`, { mode: 0o600 });
	const keysFile = path.join(folder, "keys.json");
	await writeFile(keysFile, text([{ ...appKey(), budget }]), { mode: 0o600 });
	const secret = "fedcba9876543210".repeat(4);
	const gate = await startGate(t, {
		config: {
			keysFile,
			...(await slowLedger(t, () => replace(file, `${secret}\n`))),
		},
	});
	const asking = (token: string) =>
		statusOf(gate.url, { ...bearer(testKeys.user), [tokenHeader]: token });
	t.equal(await asking(sign(claims(), { secret })), 200);
	t.equal(await asking(sign(claims())), 401);
});

t.test("a SIGHUP that comes while the gate starts is not lost", async (t) => {
	const folder = await temporaryFolder(t);
	const gate = await spawnGate(t, {
		launcher: pidWriter(folder),
		keys: entries,
		config: await slowLedger(t, async () => {
			process.kill(Number(await readFile(path.join(folder, "pid"), "utf8")), 1);
		}),
	});
	await gate.logged(({ msg }) => msg === "reloaded");
});

t.test("files that stay as they are are read once", async (t) => {
	const gate = await startGate(t, {
		keys: entries,
		config: await slowLedger(t, async () => {}),
	});
	t.notOk(gate.log.some(({ msg }) => /reload|anew/.test(String(msg))));
});

/** Writes down the number of the process that runs the command behind it, and its arguments. */
function pidWriter(folder: string): string[] {
	const script = `echo $$ >'${folder}/pid'; for last; do :; done; echo "$last" >'${folder}/config'; exec "$@"`;
	return ["sh", "-c", script, "sh"];
}

async function configFileOf(folder: string): Promise<string> {
	return (await readFile(path.join(folder, "config"), "utf8")).trim();
}
