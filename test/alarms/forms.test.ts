import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { formOf } from "../../src/config/alarms.ts";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import { BadFileError } from "../../src/errors.ts";
import { systemClock } from "../../src/ledger/alarms/clock.ts";
import { type Message, postOf } from "../../src/ledger/alarms/forms.ts";
import { post } from "../../src/ledger/alarms/post.ts";
import { loadAlarmTargets } from "../../src/ledger/alarms/targets.ts";
import { startReceiver } from "../support/receiver.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const message: Message = {
	subject: "canary",
	title: "llamagate on box: a canary key was used",
	text: 'the key "a_b" <!channel> & @everyone',
};

t.test("each receiver gets its own JSON", async (t) => {
	const to = (form: "ntfy" | "slack" | "discord", url: string) => {
		const posted = postOf(form, new URL(url), message);
		return [posted.url.href, posted.body];
	};
	t.strictSame(to("ntfy", "https://ntfy.example/gpu"), [
		"https://ntfy.example/",
		{ topic: "gpu", title: message.title, message: message.text, priority: 5 },
	]);
	t.match(
		to("ntfy", "https://example.com/ntfy/gp%75?auth=x"),
		["https://example.com/ntfy/?auth=x", { topic: "gpu" }],
		"below a folder",
	);
	t.strictSame(to("slack", "https://hooks.slack.com/services/T/B/x"), [
		"https://hooks.slack.com/services/T/B/x",
		{
			text: `*${message.title}*\nthe key "a_b" &lt;!channel&gt; &amp; @everyone`,
		},
	]);
	t.strictSame(to("discord", "https://discord.com/api/webhooks/1/x"), [
		"https://discord.com/api/webhooks/1/x",
		{
			content: `**${message.title}**\nthe key "a\\_b" <!channel\\> & @everyone`,
			allowed_mentions: { parse: [] },
		},
	]);
	const long = postOf("discord", new URL("https://discord.com/x"), {
		...message,
		text: "_".repeat(5_000),
	});
	t.ok(String((long.body as { content: string }).content).length <= 2_000);
});

t.test("a host that is nobody's known is one of ntfy's", (t) => {
	for (const [url, form] of [
		["https://discord.com/api/webhooks/1/x", "discord"],
		["https://ptb.discord.com/api/webhooks/1/x", "discord"],
		["https://hooks.slack.com/services/T/B/x", "slack"],
		["https://ntfy.example/gpu", "ntfy"],
		["https://constructor/gpu", "ntfy"],
		["https://__proto__/gpu", "ntfy"],
	] as const)
		t.equal(formOf(new URL(url)), form, url);
	t.end();
});

t.test("a login in the address is sent as one, and nowhere else", async (t) => {
	const receiver = await startReceiver(t);
	const url = new URL(`${receiver.url.replace("//", "//:tk_secret@")}/gpu`);
	t.strictSame(await post(postOf("ntfy", url, message), systemClock), {
		kind: "arrived",
	});
	t.match(receiver.received, [
		{
			path: "POST /",
			headers: {
				"content-type": "application/json",
				authorization: `Basic ${Buffer.from(":tk_secret").toString("base64")}`,
			},
			body: { topic: "gpu" },
		},
	]);
});

function mistakesOf(alarms: string, ledger = '"ledger":{},'): string[] {
	try {
		parseConfig(`{${ledger}\n"alarms":\n${alarms}}`, "config.json");
		return [];
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return error.mistakes.map(
			({ path, line, message }) => `${path} ${line} ${message}`,
		);
	}
}

t.test(
	"alarms that cannot be meant are refused with their line, without a word of their secrets",
	async (t) => {
		const secret = "tk-nobody-must-read-this";
		t.strictSame(mistakesOf(`[{"url":"https://ntfy.example/${secret}"}]`), []);
		t.strictSame(
			mistakesOf(
				`[{"url":"http://box.tail1.ts.net/${secret}"},{"url":"http://100.101.102.103/a"},{"url":"http://[fd7a:115c:a1e0::1]/a"}]`,
			),
			[],
		);
		for (const [alarms, where] of [
			[
				`[{"url":"http://ntfy.example/${secret}"}]`,
				"alarms[0].url 3 expected https://",
			],
			[
				`[{"url":"http://100.101.102.103.example/${secret}"}]`,
				"alarms[0].url 3 expected https://",
			],
			[
				`[{"url":"ftp://ntfy.example/${secret}"}]`,
				"alarms[0].url 3 expected https://",
			],
			[`[\n{"url":"${secret}"}]`, "alarms[0].url 4 expected an address"],
			[
				`[{"url":"https://${secret}.example/"}]`,
				"alarms[0].url 3 names no topic",
			],
			[
				`[{"url":"https://ntfy.example/%zz${secret}"}]`,
				"alarms[0].url 3 has a % that is not an escape",
			],
			[
				`[{"url":"https://us%er:${secret}@ntfy.example/gpu"}]`,
				"alarms[0].url 3 has a % that is not an escape",
			],
			[
				`[{"url":"https://a:${secret}%@hooks.slack.com/services/T"}]`,
				"alarms[0].url 3 has a % that is not an escape",
			],
			[
				`[{"url":["https://ntfy.example/${secret}"]}]`,
				"alarms[0].url 3 expected an address",
			],
			[`["https://ntfy.example/${secret}"]`, "alarms[0] 3 expected an alarm"],
			[`"https://ntfy.example/${secret}"`, "alarms 2 expected a list"],
			[
				`[{"url":"https://ntfy.example/a","form":"${secret}"}]`,
				'alarms[0].form 3 expected "ntfy"',
			],
			[
				`[{"url":"https://ntfy.example/a","urlFile":"b"}]`,
				"alarms[0] 3 needs a url or a urlFile",
			],
			[
				`[{"urlFile":"https://ntfy.example/${secret}"}]`,
				"alarms[0].urlFile 3 is an address",
			],
			['[{"on":["canary"]}]', "alarms[0] 3 needs a url or a urlFile"],
			[
				`[{"url":"https://ntfy.example/a","on":["canaries"]}]`,
				"alarms[0].on[0] 3 expected canary",
			],
		] as const) {
			const [found = ""] = mistakesOf(alarms);
			t.ok(found.startsWith(where), `${where}: ${found}`);
			t.notMatch(found, secret);
		}
		t.match(mistakesOf('[{"url":"https://ntfy.example/a"}]', ""), [
			/^alarms 2 need the ledger/,
		]);
	},
);

t.test("a file with such a secret is its owner's alone", async (t) => {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	const urlFile = path.join(folder, "ntfy");
	const write = (alarm: object) =>
		writeFile(config, JSON.stringify({ ledger: {}, alarms: [alarm] }));
	await write({ url: "https://ntfy.example/gpu" });
	await chmod(config, 0o644);
	await t.rejects(
		loadConfig(config),
		/alarms: has a url, which is a secret.*0644/,
	);
	await chmod(config, 0o600);
	t.match(await loadAlarmTargets(await loadConfig(config)), [
		{
			name: "ntfy at ntfy.example",
			form: "ntfy",
			on: new Set([
				"canary",
				"lockout",
				"budget",
				"upstream_down",
				"key_expiring",
			]),
		},
	]);

	await write({ urlFile: "ntfy", on: ["canary"] });
	await chmod(config, 0o644);
	await writeFile(urlFile, "https://hooks.slack.com/services/T/B/x\n");
	await chmod(urlFile, 0o644);
	const load = async () => loadAlarmTargets(await loadConfig(config));
	await t.rejects(load(), /ntfy is not usable.*\n.*others than its owner/);
	await chmod(urlFile, 0o600);
	t.match(await load(), [
		{
			name: "slack at hooks.slack.com",
			form: "slack",
			on: new Set(["canary"]),
		},
	]);
	await writeFile(urlFile, "not an address of mine");
	await t.rejects(load(), /expected an address/);
	await t.rejects(load(), { message: /^(?![\s\S]*of mine)/ });
	await writeFile(urlFile, "https://ntfy.example/100%");
	await t.rejects(load(), /has a % that is not an escape/);
	await writeFile(
		config,
		JSON.stringify({ ledger: {}, alarms: [{ urlFile: "none" }] }),
	);
	await t.rejects(load(), /none does not exist/);
});
