import t from "tap";
import { parseKeys } from "../../src/keys/keyFile.ts";
import { Keyring } from "../../src/keys/keyring.ts";
import { digestOf, generateKey, weaknessOf } from "../../src/keys/newKey.ts";
import { ollamaKeyPair } from "../support/ollamaKey.ts";

t.test("a key is found by all of its bytes and by nothing else", async (t) => {
	const key = generateKey();
	const ring = new Keyring([{ name: "a", sha256: digestOf(key) }]);
	t.equal(ring.find(key)?.key.name, "a");
	for (let length = 0; length < key.length; length++)
		t.equal(ring.find(key.slice(0, length)), undefined);
	for (const wrong of [
		`${key} `,
		`${key}0`,
		` ${key}`,
		key.toUpperCase(),
		key.replace("lg_", "LG_"),
		digestOf(key),
		`${key}\0`,
	])
		t.equal(ring.find(wrong), undefined, JSON.stringify(wrong));
});

t.test("a made key has 256 random bits and is strong enough", async (t) => {
	t.match(generateKey(), /^lg_[0-9a-f]{64}$/);
	t.not(generateKey(), generateKey());
	t.equal(weaknessOf(generateKey()), undefined);
});

t.test(
	"a key before a rotation works until its time or the key's own, whichever is first",
	async (t) => {
		const at = (text: string) => Date.parse(text);
		const ring = new Keyring([
			{
				name: "a",
				sha256: digestOf("new"),
				expires: "2030-01-01T00:00:00Z",
				previous: [
					{ sha256: digestOf("old"), expires: "2029-01-01T00:00:00Z" },
					{ sha256: digestOf("late"), expires: "2031-01-01T00:00:00Z" },
				],
			},
		]);
		t.equal(ring.find("new")?.expiresAtMs, at("2030-01-01T00:00:00Z"));
		t.equal(ring.find("old")?.expiresAtMs, at("2029-01-01T00:00:00Z"));
		t.equal(ring.find("late")?.expiresAtMs, at("2030-01-01T00:00:00Z"));
	},
);

t.test("a keys file must be right in every entry", async (t) => {
	const good = { name: "a", sha256: digestOf("a") };
	const cases: [string, unknown, RegExp][] = [
		["no list", {}, /keys: is missing/],
		[
			"two of a name",
			{ keys: [good, { ...good, sha256: digestOf("b") }] },
			/keys\[1\]\.name: the name "a" is here twice/,
		],
		[
			"two of a digest",
			{ keys: [good, { ...good, name: "b" }] },
			/same key is here twice/,
		],
		[
			"no scope",
			{ keys: [{ ...good, scopes: [] }] },
			/keys\[0\]\.scopes: expected a list of scopes/,
		],
		[
			"unknown scope",
			{ keys: [{ ...good, scopes: ["root"] }] },
			/keys\[0\]\.scopes\[0\]: expected a scope/,
		],
		[
			"no time",
			{ keys: [{ ...good, expires: "tomorrow" }] },
			/keys\[0\]\.expires: expected a time/,
		],
		[
			"no zone",
			{ keys: [{ ...good, expires: "2030-01-01T00:00:00" }] },
			/keys\[0\]\.expires: expected a time/,
		],
		[
			"upper case",
			{ keys: [{ ...good, sha256: good.sha256.toUpperCase() }] },
			/keys\[0\]\.sha256: expected a SHA-256/,
		],
		[
			"a name to forge a log with",
			{ keys: [{ ...good, name: 'a"\n' }] },
			/keys\[0\]\.name: expected a name/,
		],
		[
			"a limit of nothing",
			{ keys: [{ ...good, limits: { concurrent: 0 } }] },
			/keys\[0\]\.limits\.concurrent: expected a whole number/,
		],
		...[0, -1, 1001, "2"].map((share): [string, unknown, RegExp] => [
			`a share of ${JSON.stringify(share)}`,
			{ keys: [{ ...good, share }] },
			/line 1: keys\[0\]\.share: expected a number from 0\.001 to 1000/,
		]),
		[
			"a class that is none",
			{ keys: [{ ...good, priority: "urgent" }] },
			/line 1: keys\[0\]\.priority: expected a class: interactive, normal, batch/,
		],
		[
			"no pattern of models",
			{ keys: [{ ...good, models: ["a b"] }] },
			/keys\[0\]\.models\[0\]: expected a pattern/,
		],
		[
			"neither key",
			{ keys: [{ name: "a" }] },
			/keys\[0\]: has either sha256 or ollamaKey/,
		],
		[
			"both keys",
			{ keys: [{ ...good, ollamaKey: ollamaKeyPair("a").publicKey }] },
			/keys\[0\]: has either sha256 or ollamaKey/,
		],
		[
			"another kind of key",
			{ keys: [{ name: "a", ollamaKey: "AAAAB3NzaC1yc2E" }] },
			/keys\[0\]\.ollamaKey: expected field 2 of an ed25519/,
		],
		[
			"an option that is none",
			{ keys: [{ ...good, denyOptions: ["temperature"] }] },
			/keys\[0\]\.denyOptions\[0\]: expected an option/,
		],
		[
			"a limit that is none",
			{ keys: [{ ...good, maxOptions: { keep_alive: "-1" } }] },
			/keys\[0\]\.maxOptions\.keep_alive: expected a duration/,
		],
		[
			"a bind to nothing",
			{ keys: [{ ...good, bind: {} }] },
			/keys\[0\]\.bind: expected an object with nodes, users or tags/,
		],
		[
			"a bind to no node",
			{ keys: [{ ...good, bind: { nodes: [] } }] },
			/keys\[0\]\.bind\.nodes: expected a list of names/,
		],
		[
			"an old digest without an end",
			{ keys: [{ ...good, previous: [{ sha256: digestOf("b") }] }] },
			/keys\[0\]\.previous\[0\]\.expires: is missing/,
		],
	];
	for (const [name, value, message] of cases)
		t.throws(
			() => parseKeys(JSON.stringify(value), "keys.json"),
			{ message },
			name,
		);
	t.throws(() => parseKeys('{"keys":[],"keys":[]}', "keys.json"), {
		message: /keys: is here twice/,
	});
	t.strictSame(parseKeys(JSON.stringify({ keys: [good] }), "keys.json"), [
		good,
	]);
});

t.test(
	"a key's share and class are its entry's, or one and normal",
	async (t) => {
		const entries = parseKeys(
			JSON.stringify({
				keys: [
					{ name: "a", sha256: digestOf("a") },
					{
						name: "b",
						sha256: digestOf("b"),
						share: 2.5,
						priority: "interactive",
					},
				],
			}),
			"keys.json",
		);
		const ring = new Keyring(entries);
		t.match(ring.find("a")?.key, { share: 1, priority: "normal" });
		t.match(ring.find("b")?.key, { share: 2.5, priority: "interactive" });
	},
);

t.test("a group is one of those that are configured", async (t) => {
	const groupsOf = (group: string) =>
		new Keyring([{ name: "a", sha256: digestOf("a"), group }], {
			family: { requests: 5, per: "day" },
		}).chargesOf("a");
	t.match(groupsOf("family"), [{ account: "group:family" }]);
	for (const other of ["friends", "constructor", "toString"])
		t.strictSame(groupsOf(other), [], other);
});
