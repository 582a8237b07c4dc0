import { styleText } from "node:util";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { weaknessOf } from "../keys/newKey.ts";
import { codeOf } from "../net/errorCode.ts";
import { parseAddress } from "../net/ranges.ts";
import type { Timings } from "../probe/arrivals.ts";
import { countGaps, drawGaps, formatMs } from "../probe/gaps.ts";
import { checkGate } from "../probe/gate.ts";
import { maxTries } from "../probe/lockout.ts";
import { isPublicAddress, resolve, wayTo } from "../probe/place.ts";
import { checkPublic, publicPorts } from "../probe/ports.ts";
import { checkWebUi } from "../probe/webUi.ts";
import { headline } from "../report/headline.ts";
import { renderReport } from "../report/html.ts";
import { formatJson, toJson } from "../report/json.ts";
import {
	hasSeriousFindings,
	type Result,
	worstFirst,
} from "../report/result.ts";
import { formatResults } from "../report/text.ts";
import { version } from "../version.ts";
import { visible } from "../visible.ts";
import { askYesNo } from "./ask.ts";
import type { Command } from "./command.ts";
import { promptForKey, readStandardInput } from "./keyInput.ts";
import {
	type Given,
	isPrivateAddress,
	keyVariable,
	kindOf,
	maxPorts,
	readProbeArgs,
} from "./probeArgs.ts";
import { writePage } from "./writePage.ts";

export const probe: Command = {
	help: `
Usage: llamagate probe URL [--key-stdin] [--lockout]
       llamagate probe [URL] --public ADDRESS [--ports LIST]
       llamagate probe [URL] --webui URL

Tries a gate from outside, as its clients and as strangers meet it. Run it on
another device than the server; it needs no root and no other program. With the
key it reads, streams one short reply, and makes requests that are wrong on
purpose; it never calls what could change a model with a key.

  --key-stdin        read the key from standard input; or put it into the
                     environment as ${keyVariable}. Without a key, only what
                     strangers see is tried
  --model NAME       the model to ask (default: one that the server runs itself)
  --timeout TIME     how long it may take to load (default: 5m)
  --lockout          show wrong keys, ${maxTries} at the most, until the gate locks this
                     device out: for minutes it is then refused, whatever its key
  --public ADDRESS   the server's public address or name: are its ports shut?
                     From outside: not in its network, not through the tailnet
  --ports LIST       for --public, up to ${maxPorts} (default: ${publicPorts.join(",")})
  --allow-private    for --public, an address of a private network, to see what
                     the server shows there
  --webui URL        Open WebUI's https:// address: certificate, page, raw ports
  --yes              do not ask before --lockout
  --html FILE        write a page with the report, too
  --json             print JSON

Exit codes: 0 nothing worse than a warning, 1 findings, 2 usage

Example: llamagate probe my-server --key-stdin < laptop.key
         llamagate probe --public my-host.example.com
`,
	async run(args) {
		const given = readProbeArgs(args);
		// Before the key is read, which may be all that standard input has.
		if (given.lockout && !(await agreeToLockout(given.agreed)))
			return exitCodes.finding;
		const key =
			given.server === undefined ? undefined : await readKey(given.readsKey);

		const startedAt = performance.now();
		const results: Result[] = [];
		let timings: Timings | undefined;
		const { progress, endProgress } = showProgress(given.json);
		if (given.publicHost !== undefined) {
			progress(`knocking at ${given.publicHost}`);
			results.push(...(await probePublic(given, given.publicHost)));
		}
		if (given.webUi !== undefined) {
			progress(`looking at https://${given.webUi.host}`);
			results.push(...(await checkWebUi(given.webUi)));
		}
		// The gate comes last, and its lockout after all else that needs it.
		if (given.server !== undefined) {
			const gate = await checkGate(
				{
					origin: given.server,
					key,
					model: given.model,
					waitMs: given.waitMs,
					lockout: given.lockout,
				},
				progress,
			);
			results.unshift(...gate.results);
			timings = gate.timings;
		}
		endProgress();

		const target = [
			given.server,
			given.publicHost,
			given.webUi === undefined ? undefined : `https://${given.webUi.host}`,
		]
			.filter((part) => part !== undefined)
			.join(", ");
		const report = { version, at: new Date(), target, results };
		const keepPage = async () => {
			if (given.html !== undefined)
				await writePage(given.html, renderPage(report, timings));
		};
		if (given.json) {
			// If the page cannot be written, that is what is said, and nothing besides.
			await keepPage();
			process.stdout.write(formatJson(toJson(report)));
		} else {
			const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
			process.stdout.write(
				`${styleText("bold", `Probe of ${target}`)}, ${seconds} s\n\n${formatResults(results)}\n${formatDetails(results)}${formatTimings(timings)}${headline(results)}\n`,
			);
			await keepPage();
		}
		return hasSeriousFindings(results) ? exitCodes.finding : exitCodes.ok;
	},
};

function renderPage(
	report: Omit<Parameters<typeof renderReport>[0], "title">,
	timings: Timings | undefined,
): string {
	return renderReport({
		title: "llamagate probe",
		...report,
		...(timings === undefined
			? {}
			: {
					lead: describeStream(timings),
					histogram: countGaps(timings.gapsMs),
				}),
	});
}

/** What was seen in more than one line; the first is in the table. */
function formatDetails(results: readonly Result[]): string {
	return worstFirst(results)
		.filter(({ evidence }) => evidence.length > 1)
		.map(
			({ id, evidence }) =>
				`${styleText("bold", id)}\n${evidence.map((line) => `  ${visible(line)}\n`).join("")}\n`,
		)
		.join("");
}

/** "First token after 306 ms, then 22 tokens a second (48 in 2.1 s, qwen3:8b)". */
function describeStream({ model, firstTokenMs, spanMs, tokens }: Timings) {
	const rate =
		tokens > 1 && spanMs > 0 ? ((tokens - 1) / spanMs) * 1_000 : undefined;
	const pace =
		rate === undefined
			? ""
			: `, then ${Number(rate.toFixed(rate < 10 ? 1 : 0))} tokens a second`;
	return `First token after ${formatMs(firstTokenMs)}${pace} (${tokens} in ${formatMs(spanMs)}, ${model}).`;
}

/** How the stream came, with the gaps between its arrivals as bars. */
function formatTimings(timings: Timings | undefined): string {
	if (timings === undefined) return "";
	const { model, firstTokenMs, spanMs, tokens, arrivals, gapsMs } = timings;
	return `${styleText("bold", "The stream")}
  ${visible(model)}: first token after ${formatMs(firstTokenMs)}, then ${tokens} tokens in ${arrivals} arrivals over ${formatMs(spanMs)}
  gaps between arrivals:
${drawGaps(gapsMs)
	.map((line) => `  ${line}\n`)
	.join("")}
`;
}

/** @throws {Finding} that does not repeat it */
async function readKey(fromStdin: boolean): Promise<string | undefined> {
	let key = process.env[keyVariable]?.trim();
	let where = `in ${keyVariable}`;
	if (fromStdin) {
		where = "on standard input";
		promptForKey();
		key = await readStandardInput();
	}
	if (key === undefined || (key === "" && !fromStdin)) return undefined;
	const weakness = weaknessOf(key);
	if (weakness !== undefined)
		throw new Finding(
			`what is ${where} is not a key of llamagate: ${weakness.split(";")[0]}. Paste the key whole and alone, as llamagate keys add printed it`,
		);
	return key;
}

async function agreeToLockout(agreed: boolean): Promise<boolean> {
	say(
		`--lockout shows up to ${maxTries} wrong keys. The gate will then refuse this very device for minutes (5 unless it is configured otherwise), whatever key it sends; running streams go on. If fail2ban watches, it may ban this device for longer, half an hour with the jail that llamagate ships.`,
	);
	if (agreed) return true;
	if (!process.stdin.isTTY || !process.stderr.isTTY) {
		say("llamagate probe: found no terminal to ask on; add --yes");
		return false;
	}
	return askYesNo("Lock this device out?", process.stderr);
}

/** @throws {Finding} if the name has no address */
async function addressesOf(host: string): Promise<string[]> {
	try {
		return await resolve(host);
	} catch (error) {
		throw new Finding(
			`the name ${host} cannot be looked up (${codeOf(error)})`,
		);
	}
}

/** @throws {UsageError} for addresses that a public test says nothing about */
async function probePublic(
	{ ports, allowPrivate }: Given,
	host: string,
): Promise<Result[]> {
	const all = await addressesOf(host);
	const tested = all.filter(
		(address) =>
			isPublicAddress(address) || (allowPrivate && isPrivateAddress(address)),
	);
	const left = all.filter((address) => !tested.includes(address));
	if (tested.length === 0)
		throw new UsageError(
			left.map((address) => `${address} is ${kindOf(address)}`).join("; "),
		);
	if (parseAddress(host) === undefined)
		say(`${host} is ${tested.join(" and ")}.`);
	for (const address of left)
		say(`Left out: ${address} is ${kindOf(address)}.`);
	return checkPublic(host, await Promise.all(tested.map(wayTo)), ports);
}

/** One line on standard error that says what is being waited for, on a terminal alone. */
function showProgress(quiet: boolean) {
	const shows = process.stderr.isTTY && !quiet;
	const clear = () => process.stderr.write("\r\u001b[K");
	return {
		progress: (what: string) => {
			if (!shows) return;
			clear();
			process.stderr.write(styleText("dim", `… ${what}`));
		},
		endProgress: () => {
			if (shows) clear();
		},
	};
}

function say(text: string): void {
	process.stderr.write(`${text}\n`);
}
