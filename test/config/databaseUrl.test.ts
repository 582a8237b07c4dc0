import t from "tap";
import { readDatabaseUrl } from "../../src/config/databaseUrl.ts";
import { parseConfig } from "../../src/config/load.ts";

t.test("a database's url says where it is, and whether by TLS", async (t) => {
	const cases: [string, object][] = [
		[
			"postgres://me@db.example/usage",
			{ host: "db.example", port: 5432, user: "me", name: "usage", tls: true },
		],
		[
			"postgresql://me%40x@192.0.2.7:6000/usage?sslmode=verify-full&sslrootcert=/ca.pem",
			{ user: "me@x", port: 6000, tls: true, caFile: "/ca.pem" },
		],
		["postgres://me@localhost/usage", { host: "127.0.0.1", tls: false }],
		["postgres://me@[::1]/usage", { host: "::1", tls: false }],
		["postgres://me@100.64.1.2/usage", { host: "100.64.1.2", tls: false }],
		["postgres://me@[fd7a:115c:a1e0::5]/u", { tls: false }],
		["postgres://me@100.64.1.2/u?sslmode=verify-full", { tls: true }],
		["postgres://me@127.0.0.1/u?sslmode=disable", { tls: false }],
		[
			"postgres://me@%2Frun%2Fpostgresql/usage",
			{ host: "/run/postgresql", tls: false },
		],
	];
	for (const [url, wanted] of cases) t.match(readDatabaseUrl(url), wanted, url);
});

t.test("what is unsafe or not understood is refused", async (t) => {
	const cases: [string, RegExp][] = [
		["mysql://me@db/usage", /^expected "postgres:/],
		["postgres://db.example/usage", /expected a user/],
		["postgres://me@db.example", /expected a user/],
		["postgres://me:hush@db.example/usage", /ledger\.passwordFile/],
		["postgres://me@db.example/u?password=hush", /ledger\.passwordFile/],
		["postgres://me@db.example/u?sslmode=disable", /only loopback/],
		["postgres://me@10.0.0.5/u?sslmode=disable", /only loopback/],
		["postgres://me@host.tail1.ts.net/u?sslmode=disable", /only loopback/],
		["postgres://me@127.0.0.1/u?sslmode=require", /proves nothing/],
		["postgres://me@db/u?sslrootcert=ca.pem", /relative path/],
		["postgres://me@db/u?options=-c", /has "options" in it/],
		["postgres://me@%2Frun/u?sslrootcert=/ca.pem", /uses no TLS/],
		["postgres://m%zz@db/u", /expected|%/],
	];
	for (const [url, wanted] of cases) {
		const wrong = readDatabaseUrl(url);
		t.match(wrong, wanted, url);
		t.notMatch(wrong, /hush/);
	}
});

t.test("the configuration has a file or a database", async (t) => {
	const parse = (ledger: object) =>
		parseConfig(JSON.stringify({ ledger }, undefined, 1), "/etc/x/config.json");
	const url = "postgres://me@db.example/usage";
	t.match(parse({ url, passwordFile: "secret", gate: "north" }).ledger, {
		gate: "north",
		database: { database: { user: "me" }, passwordFile: "/etc/x/secret" },
	});
	t.throws(() => parse({ url, file: "a" }), /has both a file and a url/);
	t.throws(() => parse({ passwordFile: "a" }), /url is missing/);
	t.throws(
		() => parse({ url: "postgres://me:hush@db.example/usage" }),
		/line 3: ledger\.url: has a password in it; (?!.*hush)/,
	);
});
