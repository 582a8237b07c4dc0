import { execFile } from "node:child_process";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import t from "tap";
import { openWebUi } from "../../../src/clients/openWebUi.ts";
import { openBrowser, type Tab } from "../../support/browser.ts";
import {
	eventually,
	type LogLine,
	temporaryFolder,
	testKeys,
} from "../../support/gate.ts";
import { appSecret, secretFile } from "../../support/peopleTokens.ts";
import { realParts } from "../parts.ts";
import { compare, type Seen, summarize } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";
import { models, start, startStack } from "./stack.ts";

/**
 * Open WebUI in a browser, as an administrator sees it. Not one of the tests of
 * npm run test:real, as it takes 7 GB: npm run test:open-webui.
 */

const run = promisify(execFile);

const { package: name, version } = pinned("open-webui");
const site = "http://127.0.0.1:8080";
const person = { name: "Person", email: "person@example.com" };
const password = "correct horse battery staple";
/** Another, whom the administrator adds; the gate leaves them one model. */
const other = { name: "Other", email: "other@example.com" };

/** What keeps it from asking anybody but the gate. */
const offline = {
	OFFLINE_MODE: "true",
	HF_HUB_OFFLINE: "1",
	ENABLE_VERSION_UPDATE_CHECK: "false",
	ANONYMIZED_TELEMETRY: "false",
	DO_NOT_TRACK: "true",
	SCARF_NO_ANALYTICS: "true",
	// Else it loads a model of its own at its start.
	RAG_EMBEDDING_ENGINE: "ollama",
};

t.test(`${name} ${version}, through the gate`, async (t) => {
	const stack = await startStack(
		t,
		{
			models: [models.short, models.endless, models.forbidden],
			people: {
				jwt: { secretFile },
				rules: [
					{ role: "admin" },
					{ email: other.email, models: [models.short] },
				],
			},
		},
		{
			config: { log: { people: "on" } },
			files: { [secretFile]: `${appSecret}\n` },
		},
	);
	const home = await temporaryFolder(t);
	const folder = clientFolder(realParts().folder, name);
	const connection = {
		server: stack.server,
		key: testKeys.user,
		model: models.short,
		secret: appSecret,
	};
	const [, printed, signing] = openWebUi.render(connection).snippets;
	const server = start(
		stack.inClientNetwork([
			path.join(folder, "bin/python"),
			path.join(folder, "bin/open-webui"),
			...["serve", "--host", "127.0.0.1", "--port", new URL(site).port],
		]),
		{
			cwd: home,
			input: "",
			env: {
				PATH: "/usr/bin:/bin",
				HOME: home,
				LANG: "C.UTF-8",
				DATA_DIR: path.join(home, "data"),
				...offline,
				// It asks for a title beside each chat; the endless model would never come to one.
				TASK_MODEL: `${models.short}:latest`,
				...variables(printed?.text ?? ""),
				...variables(signing?.text ?? ""),
				// Else a model is its administrator's until it is shared.
				BYPASS_MODEL_ACCESS_CONTROL: "true",
			},
		},
	);
	t.teardown(() => server.kill());
	// It does not say when it listens.
	const [ss = "", ...listing] = stack.inClientNetwork([
		...["ss", "-lntH", `sport = :${new URL(site).port}`],
	]);
	await eventually(
		async () =>
			server.hasEnded() || (await run(ss, listing)).stdout.trim() !== "",
	);
	if (server.hasEnded()) throw new Error(server.shown());
	/** How often a program has asked for an address that is not in this network. */
	const strayed = async () => {
		const [nstat = "", ...counter] = stack.inClientNetwork([
			...["nstat", "-asz", "IpOutNoRoutes"],
		]);
		const { stdout } = await run(nstat, counter);
		return Number(/^IpOutNoRoutes +(\d+)/m.exec(stdout)?.[1]);
	};
	t.equal(await strayed(), 0, "it asks nobody at its start");
	const page = operate(await openBrowser(t, stack.inClientNetwork([])));
	const cases: Record<string, Seen> = {};

	/** What becomes of an action: the gate's lines on such requests as are named. */
	const during = async (route: string, action: () => Promise<void>) => {
		const before = stack.requests().length;
		await action();
		await stack.settled();
		const lines = stack.requests().slice(before);
		// Which of two at once ends first is a matter of milliseconds.
		return lines
			.filter((line) => line.route === route)
			.sort((a, b) => String(a.outcome).localeCompare(String(b.outcome)));
	};
	/** Sends a message in a new chat. */
	const ask = async () => {
		await page.type("#chat-input", "Hello!");
		await page.press("Send message");
	};
	const reply = () => page.text("#response-content-container");
	const signIn = async (email: string) => {
		await page.evaluate("localStorage.removeItem('token')");
		await page.open("/auth?state=logout", "#email");
		await page.fill("#email", email);
		await page.fill("#password", password);
		await page.press("Sign in");
		await page.find("#chat-input");
	};
	/** Opens a new chat; a model that is not in Open WebUI's list leaves another one chosen. */
	const begin = async (model: string) => {
		await page.open(`/?model=${model}:latest`, "#chat-input");
		await page.waitFor(
			`document.querySelector("#message-input-container").innerText.includes("${model}:latest")`,
		);
	};

	await t.test("the first person signs up, and in", async () => {
		await page.open("/", "[aria-label='Get started']");
		await page.press("Get started");
		await page.fill("#name", person.name);
		await page.fill("#email", person.email);
		await page.fill("#password", password);
		await page.press("Create Admin Account");
		await page.press("Okay, Let's Go!");
		await signIn(person.email);
	});

	await t.test("a chat is answered", async (t) => {
		await begin(models.short);
		const lines = await during("POST /api/chat", async () => {
			await ask();
			await eventually(async () => /\w/.test(await reply()));
			// Besides the reply: a title, tags, and what may be asked next.
			await eventually(() => stack.requests().filter(isChat).length >= 4);
		});
		t.match(await reply(), /\w/);
		for (const line of stack.requests().filter(isChat))
			t.match(line, { userBy: "jwt", person: person.email });
		cases.chat = { gate: summarize(lines) };
	});

	await t.test("a stream is shown as it comes, and stopped", async (t) => {
		await begin(models.endless);
		const lines = await during("POST /api/chat", async () => {
			await ask();
			await eventually(async () => /\d/.test(await reply()));
			const first = await reply();
			await eventually(async () => (await reply()).length > first.length);
			t.notOk(stack.requests().some(isEndless), "shown before its end");
			await page.press("Stop");
			await stack.logged(isEndless);
		});
		t.match(lines.find(isEndless), { outcome: "client_gone" });
		t.ok(await stack.isRunnerFree());
		cases.abort = { gate: summarize(lines) };
	});

	await t.test("a model is taken from the key", async (t) => {
		await begin(models.forbidden);
		await stack.allow([models.short, models.endless]);
		const lines = await during("POST /api/chat", async () => {
			await ask();
			await eventually(async () => /\w/.test(await reply()));
		});
		t.match(lines.at(-1), { status: 403 });
		cases["forbidden model"] = {
			shows: [await reply()],
			gate: summarize(lines),
		};
	});

	await t.test("another person has their own models", async (t) => {
		await stack.allow([models.short, models.endless, models.forbidden]);
		const added = await page.evaluate<number>(
			`fetch("/api/v1/auths/add", {
				method: "POST",
				headers: { "content-type": "application/json", authorization: "Bearer " + localStorage.token },
				body: ${JSON.stringify(JSON.stringify({ ...other, password, role: "user" }))},
			}).then(({ status }) => status)`,
		);
		t.equal(added, 200);
		await signIn(other.email);
		await begin(models.short);
		const chat = await during("POST /api/chat", async () => {
			await ask();
			await eventually(async () => /\w/.test(await reply()));
			await eventually(() => stack.requests().filter(isTheirs).length >= 4);
		});
		for (const line of chat.filter(isTheirs))
			t.match(line, { userBy: "jwt", status: 200 });
		const listed = await page.evaluate<string[]>(
			`fetch("/api/models", { headers: { authorization: "Bearer " + localStorage.token } })
				.then((reply) => reply.json())
				.then(({ data }) => data.filter(({ owned_by }) => owned_by === "ollama").map(({ id }) => id))`,
		);
		t.strictSame(listed, [`${models.short}:latest`]);
		cases["another person"] = { shows: listed, gate: summarize(chat) };
		await signIn(person.email);
	});

	/** Gives the connection a key, and says what comes of "Verify Connection". */
	const setKey = async (key: string) => {
		await page.open("/admin/settings/connections", "[aria-label=Configure]");
		await page.press("Configure");
		await page.fill("input[placeholder='API Key']", key);
		await page.press("Verify Connection");
		const verdict = await page.notice();
		await page.press("Save");
		await page.waitFor(
			`document.body.innerText.includes("Ollama API settings updated")`,
		);
		return verdict;
	};
	await t.test("a wrong key is told", async (t) => {
		let shown = "";
		const lines = await during("GET /api/version", async () => {
			shown = await setKey(testKeys.wrong);
		});
		t.match(lines.at(-1), { status: 401 });
		// Nor does it have any model to choose from then.
		await page.open("/", "#chat-input");
		const none = "Select a model";
		await page.waitFor(
			`document.querySelector("#message-input-container").innerText.includes("${none}")`,
		);
		cases["wrong key"] = { shows: [shown, none], gate: summarize(lines) };
		t.match(await setKey(testKeys.user), /verified/);
	});

	await t.test("Ollama is stopped", async (t) => {
		await begin(models.short);
		await stack.stopOllama();
		const lines = await during("POST /api/chat", async () => {
			await ask();
			await eventually(async () => /\w/.test(await reply()));
		});
		t.match(lines.at(-1), { status: 502 });
		cases["Ollama stopped"] = {
			shows: [(await reply()).replaceAll(stack.ollama, "127.0.0.1:11434")],
			gate: summarize(lines),
		};
	});

	const asked = page.requests().filter((url) => /^\w+:\/\//.test(url));
	t.strictSame(
		asked.filter((url) => !url.startsWith(`${site}/`)),
		[],
		"the page asks nobody else",
	);
	t.notMatch(server.shown(), testKeys.user);
	const title = `${name} ${version} (PyPI)`;
	const typed =
		"`open-webui serve`, with what `llamagate connect open-webui` prints for open-webui.env, used in Chromium: the stop by its button, the wrong key in Admin Settings, Connections, with Verify Connection (below it what a chat then says in place of a model), the forbidden model in a chat that was begun while the key still had it. Beside each chat it asks for a title, after it for tags and what may be asked next; here the model `short` does that";
	compare(t, { title, typed, cases }, name);
});

function isEndless({ model }: LogLine): boolean {
	return model === `${models.endless}:latest`;
}

function isTheirs(line: LogLine): boolean {
	return isChat(line) && line.person === other.email;
}

function isChat({ route }: LogLine): boolean {
	return route === "POST /api/chat";
}

/** What a person does in the page. Each waits for what it is done to. */
function operate(tab: Tab) {
	const { evaluate } = tab;
	// Each look costs the browser something, and every step takes it a while.
	const waitFor = async (expression: string) => {
		while (!(await evaluate<boolean>(`Boolean(${expression})`)))
			await delay(100);
	};
	const one = (selector: string) =>
		`document.querySelector(${JSON.stringify(selector)})`;
	const last = (selector: string) =>
		`[...document.querySelectorAll(${JSON.stringify(selector)})].at(-1)`;
	const find = (selector: string) => waitFor(one(selector));
	const text = (selector: string) =>
		evaluate<string>(`${last(selector)}?.innerText ?? ""`);
	const toast = "[data-sonner-toast]";
	const earlier: string[] = [];
	return {
		evaluate,
		waitFor,
		find,
		/** Every URL that the page has asked for. */
		requests: () => [...earlier, ...tab.requests],
		async open(place: string, selector: string) {
			earlier.push(...tab.requests);
			await tab.open(`${site}${place}`, { width: 1280, scheme: "light" });
			await find(selector);
		},
		/** Presses the button of that name. */
		async press(label: string) {
			const button = `[...document.querySelectorAll("button")].findLast((button) =>
				!button.disabled && [button.ariaLabel, button.innerText.trim()].includes(${JSON.stringify(label)}))`;
			await waitFor(button);
			await evaluate(`${button}.click()`);
		},
		/** Puts a text into a field, in place of what was there. */
		async fill(selector: string, text: string) {
			await find(selector);
			await evaluate(
				`${one(selector)}.select(), document.execCommand("insertText", false, ${JSON.stringify(text)})`,
			);
		},
		/** Types into what is no field of a form. */
		async type(selector: string, text: string) {
			await find(selector);
			await evaluate(
				`${one(selector)}.focus(), document.execCommand("insertText", false, ${JSON.stringify(text)})`,
			);
		},
		/** What the last such element shows. */
		text,
		/** What the page says in passing, as soon as it does. */
		async notice() {
			await eventually(async () => (await text(toast)) !== "");
			return text(toast);
		},
	};
}

/** The lines of a file of variables. */
function variables(text: string): Record<string, string> {
	return Object.fromEntries(
		text.split("\n").map((line) => {
			const [, name = "", value = ""] = /^(\w+)=(.*)$/.exec(line) ?? [];
			return [name, value];
		}),
	);
}
