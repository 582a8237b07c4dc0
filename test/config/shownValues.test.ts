import t from "tap";
import { parseConfig } from "../../src/config/load.ts";

/** What is said of a configuration that is refused. */
function refusalOf(config: object): string {
	try {
		parseConfig(JSON.stringify(config), "config.json");
	} catch (error) {
		return (error as Error).message;
	}
	return "";
}

const upstreams = (url: unknown) => ({ upstreams: [{ name: "a", url }] });

t.test(
	"a password in Valkey's address is told of and never shown, however the address is written",
	async (t) => {
		for (const url of [
			"valkey://:Hunter/2d3f@10.0.0.1:6379",
			"valkey://:Hunter#2d3f@10.0.0.1",
			"valkey://u:Hunter%zz#x@host",
			"valkeyss://:Hunter2@10.0.0.1",
			"valkey:/:Hunter2@10.0.0.1",
			":Hunter2@10.0.0.1",
			"Hunter2@10.0.0.1",
		]) {
			const says = refusalOf({ state: { url } });
			t.match(
				says,
				/line 1: state\.url: has a user or a password in it.*state\.passwordFile/,
			);
			t.notMatch(says, "Hunter", url);
		}
	},
);

t.test(
	"nor is one in any other address, or where an address was put by mistake",
	async (t) => {
		for (const config of [
			{ state: { url: "unix:Hunter2@10.0.0.1" } },
			{ state: { url: "valkey://10.0.0.1?password=Hunter2" } },
			{ state: "valkey://:Hunter2@10.0.0.1" },
			{ state: ["valkey://:Hunter2@10.0.0.1"] },
			{ ledger: "postgres://llamagate:Hunter2@db/usage" },
			{ ledger: { url: "postgres://llamagate:Hunter/2@db/usage" } },
			{ upstream: { url: "http://x:Hunter2@127.0.0.1:11434" } },
			{ upstream: { url: "http://x:12/Hunter2@127.0.0.1:11434" } },
			{ upstream: { url: "x:Hunter2@127.0.0.1" } },
			{ upstream: "http://x:Hunter2@127.0.0.1" },
			upstreams("http://x:lg_Hunter2@minipc"),
			upstreams("http://x:12/lg_Hunter2@minipc"),
			upstreams("lg_Hunter2@minipc"),
			upstreams(["http://x:lg_Hunter2@minipc"]),
			{ upstreams: ["http://x:lg_Hunter2@minipc"] },
			{ cors: { origins: ["https://x:Hunter2@chat.example"] } },
			{ admin: { metrics: "x:Hunter2@127.0.0.1:9464" } },
			{ listen: { address: "x:Hunter2@127.0.0.1" } },
			{ sources: ["x:Hunter2@127.0.0.1"] },
		]) {
			const says = refusalOf(config);
			t.match(says, /^config\.json is not usable:\n {2}line 1: /);
			t.notMatch(says, "Hunter", JSON.stringify(config));
		}
	},
);

t.test("what is refused says what to take away", async (t) => {
	for (const config of [
		{ upstream: { url: "http://x:y@127.0.0.1:11434" } },
		upstreams("http://x:y@minipc"),
	])
		t.match(
			refusalOf(config),
			/url: expected http:\/\/.*which is not shown.*: take what is before the @ away\. /,
		);
});

t.test("a socket without a whole path is told what is missing", async (t) => {
	for (const [url, advice] of [
		["unix:@ollama", /: a socket of the abstract kind has no path; let its /],
		["unix:ollama@1.sock", /: its path must be whole, from the first \/ on\. /],
		["unix:ollama.sock", /: its path must be whole, from the first \/ on\. /],
	] as const)
		for (const config of [{ upstream: { url } }, upstreams(url)]) {
			const says = refusalOf(config);
			t.match(says, advice);
			t.notMatch(says, "take what is before");
		}
});

t.test("a socket's path may have an @ in it", async (t) => {
	const target = { kind: "unix", socketPath: "/run/a@b.sock" };
	const url = "unix:/run/a@b.sock";
	const settings = parseConfig(
		JSON.stringify({ upstream: { url }, state: { url } }),
		"config.json",
	);
	t.strictSame(settings.upstream.target, target);
	t.strictSame(settings.state?.target, target);
});

t.test("a key in place of its file's name is not shown", async (t) => {
	const keyFile = `lg_${"0123456789abcdef".repeat(4)}`;
	const says = refusalOf({
		upstreams: [{ name: "a", url: "http://minipc:11434", keyFile }],
	});
	t.match(says, /line 1: upstreams\[0\]\.keyFile: is a key, and is to name/);
	t.notMatch(says, "lg_");
});
