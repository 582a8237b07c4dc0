import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { temporaryFolder } from "./temporaryFolder.ts";

type Tap = Parameters<typeof temporaryFolder>[0];
type Values = Record<string, unknown>;

interface Message {
	readonly id?: number;
	readonly method?: string;
	readonly params?: Values;
	readonly sessionId?: string;
	readonly result?: Values;
	readonly error?: { readonly message: string };
}

/** How a page is looked at. */
export interface View {
	readonly width: number;
	readonly height?: number;
	readonly scheme: "light" | "dark";
}

/** As the DevTools protocol has them. */
const keyCodes = { Tab: 9, Enter: 13, ArrowRight: 39 } as const;

/** A tab of Chromium, spoken to by its DevTools protocol. */
export interface Tab {
	/** Every URL that was asked for since the last {@link Tab.open}. */
	readonly requests: readonly string[];
	/** Opens a page and waits until all of it is loaded. */
	open(url: string, view: View): Promise<void>;
	/** The value of an expression in the page, also where the page's policy allows it no script. */
	evaluate<T>(expression: string): Promise<T>;
	/** The page from top to bottom, a PNG; no more of it than so many pixels, if they are given. */
	screenshot(maxHeight?: number): Promise<Buffer>;
	/** Presses a key of the keyboard, such as `Tab` or `Enter`. */
	press(key: keyof typeof keyCodes): Promise<void>;
	/** Whether scripts run in pages that are opened from now on. */
	allowScripts(isAllowed: boolean): Promise<void>;
	/** The value of an expression in the page as it is printed. */
	onPaper<T>(expression: string): Promise<T>;
}

/**
 * An expression that tells what of a page sticks out to the side.
 *
 * @param except a selector of what may
 */
export const overflow = (except: string) => `(() => {
	const width = document.documentElement.clientWidth;
	const out = [...document.querySelectorAll("body *")]
		.filter((element) => !element.closest("${except}"))
		.filter((element) => {
			const { left, right } = element.getBoundingClientRect();
			return left < 0 || right > width + 0.5;
		})
		.map(({ tagName, className }) => tagName + " " + className);
	const { scrollWidth } = document.documentElement;
	return scrollWidth > width ? [scrollWidth + " > " + width, ...out] : out;
})()`;

/**
 * Starts Debian's Chromium with a profile of its own; it ends with the test.
 *
 * @param launcher a command that runs the command that follows it
 */
export async function openBrowser(
	t: Tap,
	launcher: readonly string[] = [],
): Promise<Tab> {
	const profile = await temporaryFolder(t);
	const [program = "", ...before] = [...launcher, "chromium"];
	const chromium = spawn(
		program,
		[
			...before,
			"--headless",
			"--no-sandbox",
			"--disable-gpu",
			"--disable-dev-shm-usage",
			"--disable-quic",
			"--no-first-run",
			"--disable-background-networking",
			"--disable-component-update",
			"--disable-sync",
			"--remote-debugging-pipe",
			`--user-data-dir=${profile}`,
			"about:blank",
		],
		{
			stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
			// A profile counts for little as long as the home folder is asked, too.
			env: { ...process.env, HOME: profile },
		},
	);
	const ended = once(chromium, "exit");
	const [, , , commands, messages] = chromium.stdio as unknown as [
		null,
		null,
		null,
		Writable,
		Readable,
	];

	const waiting = new Map<
		number,
		{ resolve: (result: Values) => void; reject: (error: Error) => void }
	>();
	const listeners = new Map<string, (params: Values) => void>();
	let lastId = 0;
	let sessionId: string | undefined;
	const send = (method: string, params: Values = {}) =>
		new Promise<Values>((resolve, reject) => {
			lastId += 1;
			waiting.set(lastId, { resolve, reject });
			commands.write(
				`${JSON.stringify({ id: lastId, method, params, ...(sessionId === undefined ? {} : { sessionId }) })}\0`,
			);
		});
	void (async () => {
		let rest = "";
		messages.setEncoding("utf8");
		for await (const piece of messages) {
			const parts = (rest + piece).split("\0");
			rest = parts.pop() ?? "";
			for (const part of parts) {
				const { id, method, params, result, error } = JSON.parse(
					part,
				) as Message;
				if (method !== undefined) listeners.get(method)?.(params ?? {});
				if (id === undefined) continue;
				if (error === undefined) waiting.get(id)?.resolve(result ?? {});
				else waiting.get(id)?.reject(new Error(error.message));
				waiting.delete(id);
			}
		}
		for (const { reject } of waiting.values())
			reject(new Error("Chromium has ended"));
	})();

	t.teardown(async () => {
		sessionId = undefined;
		// Asked to, it ends its processes first; killed, it leaves them to write into its profile.
		await send("Browser.close");
		await ended;
	});
	const { targetInfos } = (await send("Target.getTargets")) as {
		targetInfos: { type: string; targetId: string }[];
	};
	const page = targetInfos.find(({ type }) => type === "page");
	const attached = await send("Target.attachToTarget", {
		targetId: page?.targetId,
		flatten: true,
	});
	sessionId = attached.sessionId as string;
	await send("Page.enable");
	await send("Network.enable");
	const requests: string[] = [];
	listeners.set("Network.requestWillBeSent", ({ request }) => {
		requests.push((request as { url: string }).url);
	});

	const evaluate = async <T>(expression: string) => {
		const { result, exceptionDetails } = await send("Runtime.evaluate", {
			expression,
			returnByValue: true,
			awaitPromise: true,
		});
		if (exceptionDetails !== undefined)
			throw new Error(JSON.stringify(exceptionDetails));
		return (result as { value: T }).value;
	};
	let areScriptsAllowed = true;
	return {
		requests,
		async open(url, { width, height = 800, scheme }) {
			await send("Emulation.setDeviceMetricsOverride", {
				width,
				height,
				deviceScaleFactor: 1,
				mobile: width < 600,
			});
			await send("Emulation.setEmulatedMedia", {
				features: [{ name: "prefers-color-scheme", value: scheme }],
			});
			requests.length = 0;
			const loaded = new Promise<void>((resolve) => {
				listeners.set("Page.loadEventFired", () => resolve());
			});
			await send("Page.navigate", { url });
			await loaded;
			// Without scripts none says when the page has been drawn.
			if (!areScriptsAllowed) return;
			await evaluate(
				"new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))",
			);
		},
		evaluate,
		async screenshot(maxHeight) {
			const { cssContentSize } = (await send("Page.getLayoutMetrics")) as {
				cssContentSize: { width: number; height: number };
			};
			const { width, height } = cssContentSize;
			const { data } = await send("Page.captureScreenshot", {
				captureBeyondViewport: true,
				...(maxHeight !== undefined && {
					clip: {
						...{ x: 0, y: 0, scale: 1, width },
						height: Math.min(height, maxHeight),
					},
				}),
			});
			return Buffer.from(data as string, "base64");
		},
		async press(key) {
			const windowsVirtualKeyCode = keyCodes[key];
			const event = { key, code: key, windowsVirtualKeyCode };
			await send("Input.dispatchKeyEvent", {
				...event,
				type: "keyDown",
				...(key === "Enter" && { text: "\r" }),
			});
			await send("Input.dispatchKeyEvent", { ...event, type: "keyUp" });
		},
		async allowScripts(isAllowed) {
			areScriptsAllowed = isAllowed;
			await send("Emulation.setScriptExecutionDisabled", {
				value: !isAllowed,
			});
		},
		async onPaper(expression) {
			await send("Emulation.setEmulatedMedia", { media: "print" });
			const value = await evaluate(expression);
			await send("Emulation.setEmulatedMedia", { media: "" });
			return value as never;
		},
	};
}
