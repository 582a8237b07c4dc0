import { once } from "node:events";
import { connect } from "node:net";
import { goFlags } from "./goFlags.ts";
import {
	questions,
	readState,
	type ServeConfig,
	statusOf,
	type TailscaleState,
	writeState,
} from "./tailscaleState.ts";

/**
 * What a host that is booted for a test has as `tailscale`: the calls that
 * llamagate makes or advises, with the syntax, the output and the refusals of
 * Tailscale 1.103 (cmd/tailscale/cli). The stand-in for tailscaled answers those
 * that ask most, as long as it runs.
 */
class Failure extends Error {}

const version = "1.103.0";
const longVersion = "1.103.0-dev20260822-tde9ec7ee2";
const [command = "", ...rest] = process.argv.slice(2);

async function run(): Promise<void> {
	if (command === "version" || command === "--version") return sayVersion(rest);
	await mustAnswer();
	const state = readState();
	switch (command) {
		case "status":
			return sayStatus(state, rest);
		case "ip":
			return sayAddresses(state, rest);
		case "wait":
			return;
		case "serve":
		case "funnel":
			return serve(state, command, rest);
		case "debug":
			if (rest[0] !== "prefs") break;
			return say(questions["debug prefs"](state));
		case "up":
			return up(state, rest);
		case "down":
			state.prefs.WantRunning = false;
			return save(state);
		case "set":
			return set(state, rest);
	}
	throw new Failure(`unknown subcommand: ${[command, ...rest].join(" ")}`);
}

function say(text: string): void {
	process.stdout.write(text);
}

/** client/local/local.go:doLocalRequestNiceError */
async function mustAnswer(): Promise<void> {
	const socket = connect("/run/tailscale/tailscaled.sock");
	try {
		await once(socket, "connect");
	} catch {
		throw new Failure(
			"failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)",
		);
	} finally {
		socket.destroy();
	}
}

/** ipn/localapi checks that whoever changes something is root or the operator. */
function save(state: TailscaleState): void {
	if (process.getuid?.() !== 0)
		throw new Failure(
			`Access denied: prefs write access denied\n\nUse 'sudo tailscale ${[command, ...rest].join(" ")}'.`,
		);
	writeState(state);
}

function sayVersion(args: string[]) {
	const { flags } = parse(args, { json: "boolean", daemon: "boolean" });
	if (flags.json)
		return console.log(
			JSON.stringify(
				{
					majorMinorPatch: version,
					isDev: true,
					short: `${version}-dev20260822`,
					long: longVersion,
					unstableBranch: true,
					cap: 140,
				},
				undefined,
				"\t",
			),
		);
	console.log(
		`${version}\n  long version: ${longVersion}\n  go version: go1.26.5`,
	);
}

function sayStatus(state: TailscaleState, args: string[]) {
	const { flags, positional } = parse(args, {
		json: "boolean",
		peers: "boolean",
		self: "boolean",
		active: "boolean",
	});
	if (positional.length > 0)
		throw new Failure("unexpected non-flag arguments to 'tailscale status'");
	const status = statusOf(state, flags.peers !== "false");
	if (flags.json) return say(JSON.stringify(status, undefined, 2));
	switch (status.BackendState) {
		case "NeedsLogin":
			throw sayAndFail("Logged out.");
		case "Stopped":
			throw sayAndFail("Tailscale is stopped.");
	}
	for (const { name, addresses } of [
		{ name: "server", addresses: state.addresses },
		...(flags.peers === "false" ? [] : state.peers),
	])
		console.log(`${addresses[0]}  ${name}  me@  linux  -  `);
}

function sayAndFail(text: string): Failure {
	console.log(text);
	process.exit(1);
}

function sayAddresses({ addresses, loggedIn }: TailscaleState, args: string[]) {
	const { flags } = parse(args, {
		"1": "boolean",
		"4": "boolean",
		"6": "boolean",
		assert: "string",
	});
	const own = loggedIn ? addresses : [];
	if (flags.assert !== undefined) {
		if (own.includes(flags.assert)) return;
		throw new Failure(
			`assertion failed: IP "${flags.assert}" not found among [${own.join(" ")}]`,
		);
	}
	if (own.length === 0)
		throw new Failure("no current Tailscale IPs; state: NeedsLogin");
	const wanted = own.filter(
		(address) =>
			(flags["4"] === undefined || !address.includes(":")) &&
			(flags["6"] === undefined || address.includes(":")),
	);
	for (const address of flags["1"] === undefined ? wanted : wanted.slice(0, 1))
		console.log(address);
}

/** cmd/tailscale/cli/serve_v2.go:runServeCombined */
async function serve(
	state: TailscaleState,
	mode: "serve" | "funnel",
	args: string[],
): Promise<void> {
	const [first = ""] = args;
	if (first === "status") return sayServeStatus(state, args.slice(1));
	if (first === "reset") {
		state.serve = {};
		return save(state);
	}
	const { flags, positional } = parse(args, {
		bg: "boolean",
		yes: "boolean",
		https: "string",
		http: "string",
		tcp: "string",
		"set-path": "string",
	});
	refuseOldSyntax(mode, positional);
	if (positional.length === 0)
		throw new Failure(`tailscale ${mode} <target>: flag: help requested`);
	const isOff = positional.at(-1) === "off";
	if (positional.length > 2)
		throw invalid(mode, `invalid number of arguments (${positional.length})`);
	if (positional.length === 2 && !isOff)
		throw invalid(mode, "invalid argument format");

	const types = (["https", "http", "tcp"] as const).filter(
		(type) => flags[type] !== undefined,
	);
	if (types.length > 1)
		throw invalid(mode, "cannot serve multiple types for a single mount point");
	const [type = "https"] = types;
	const port = Number(flags[type] ?? "443");
	const { DNSName } = statusOf(state, false).Self as { DNSName: string };
	const hostPort = `${DNSName.replace(/\.$/, "")}:${port}`;
	const mount = flags["set-path"] ?? "/";

	const whole: ServeConfig = state.serve ?? {};
	state.serve = whole;
	if (isOff) {
		remove(whole, type, hostPort, port, mode);
		return save(state);
	}
	const isForeground = flags.bg === undefined || flags.bg === "false";
	const session = `session-${process.pid}`;
	const config: ServeConfig = isForeground ? {} : whole;
	if (isForeground)
		whole.Foreground = { ...whole.Foreground, [session]: config };
	const target = positional[0] ?? "";
	add(config, type, hostPort, port, mount, target, mode);
	save(state);
	const scheme = type === "http" ? "http" : "https";
	console.log(
		`${mode === "funnel" ? "Available on the internet:" : "Available within your tailnet:"}

${scheme}://${hostPort.replace(/:(443|80)$/, "")}${mount}
|-- proxy ${expand(target)}
`,
	);
	if (!isForeground)
		return console.log(
			`${mode === "funnel" ? "Funnel" : "Serve"} started and running in the background.
To disable the proxy, run: tailscale ${mode} --${type}=${port} off`,
		);
	console.log("Press Ctrl+C to exit.");
	const alive = setInterval(() => {}, 60_000);
	const sessionEnded = new Promise((resolve) => {
		for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, resolve);
	});
	await sessionEnded;
	clearInterval(alive);
	const now = readState();
	delete now.serve?.Foreground?.[session];
	if (Object.keys(now.serve?.Foreground ?? {}).length === 0)
		delete now.serve?.Foreground;
	save(now);
}

/** serve_v2.go:isLegacyInvocation */
function refuseOldSyntax(mode: "serve" | "funnel", args: string[]): void {
	const [first = "", second = ""] = args;
	const [, type = "", port] =
		/^(https?|tcp|tls-terminated-tcp)(?::(\d+))?$/.exec(first) ?? [];
	const isOld =
		mode === "funnel"
			? /^\d+$/.test(first) && ["on", "off"].includes(second)
			: type.startsWith("http")
				? args.length === 3 || (args.length === 2 && second.startsWith("/"))
				: port !== undefined && args.length === 2;
	if (!isOld) return;
	const to =
		type === "https" && (port ?? "443") === "443"
			? []
			: [`--${type} ${port ?? 80}`];
	const advice =
		mode === "funnel"
			? ""
			: ` You can run the following command instead:\n\t- ${["tailscale serve --bg", ...to, args.at(-1)].join(" ")}\n`;
	throw new Failure(
		`Error: the CLI for serve and funnel has changed.${advice}
Please see https://tailscale.com/kb/1242/tailscale-serve for more information.
try \`tailscale ${mode} --help\` for usage info`,
	);
}

function invalid(mode: string, reason: string): Failure {
	return new Failure(
		`error: ${reason}\n\ntry \`tailscale ${mode} --help\` for usage info`,
	);
}

function add(
	config: ServeConfig,
	type: "https" | "http" | "tcp",
	hostPort: string,
	port: number,
	mount: string,
	target: string,
	mode: "serve" | "funnel",
): void {
	if (type === "tcp") {
		config.TCP = {
			...config.TCP,
			[port]: { TCPForward: expand(target).replace(/^[a-z]+:\/\//, "") },
		};
	} else {
		config.TCP = {
			...config.TCP,
			[port]: type === "https" ? { HTTPS: true } : { HTTP: true },
		};
		const handlers = {
			...config.Web?.[hostPort]?.Handlers,
			[mount]: { Proxy: expand(target) },
		};
		config.Web = { ...config.Web, [hostPort]: { Handlers: handlers } };
	}
	if (mode === "funnel")
		config.AllowFunnel = { ...config.AllowFunnel, [hostPort]: true };
	// Serving a port to the tailnet takes it off the internet.
	else delete config.AllowFunnel?.[hostPort];
	tidy(config);
}

function remove(
	config: ServeConfig,
	type: string,
	hostPort: string,
	port: number,
	mode: string,
): void {
	const isThere =
		type === "tcp"
			? config.TCP?.[port]?.TCPForward !== undefined
			: config.Web?.[hostPort] !== undefined;
	if (!isThere) throw invalid(mode, "handler does not exist");
	delete config.TCP?.[port];
	delete config.Web?.[hostPort];
	delete config.AllowFunnel?.[hostPort];
	tidy(config);
}

/** Go leaves empty maps out. */
function tidy(config: ServeConfig): void {
	for (const name of ["TCP", "Web", "AllowFunnel"] as const)
		if (Object.keys(config[name] ?? {}).length === 0) delete config[name];
}

/** ipn/serve.go:ExpandProxyTargetValue */
function expand(target: string): string {
	if (/^\d+$/.test(target)) return `http://127.0.0.1:${target}`;
	if (target.startsWith("unix:")) return target;
	const url = target.includes("://") ? target : `http://${target}`;
	const { hostname, port } = URL.canParse(url)
		? new URL(url)
		: { hostname: "", port: "" };
	const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
	if (hostname === "") throw invalid("serve", `invalid URL "${target}"`);
	if (isLocal && port === "" && !/:\d+/.test(url.replace(/^\w+:/, "")))
		throw invalid("serve", `port required for localhost target "${url}"`);
	if (!isLocal && url !== target)
		throw invalid(
			"serve",
			`non-localhost target "${url}" must include a scheme`,
		);
	return url;
}

/** serve_legacy.go:runServeStatus */
function sayServeStatus(state: TailscaleState, args: string[]) {
	const { flags } = parse(args, { json: "boolean" });
	if (flags.json) return say(questions["serve status --json"](state));
	const { serve: config } = state;
	const isEmpty =
		Object.keys({ ...config?.TCP, ...config?.Web, ...config?.AllowFunnel })
			.length === 0;
	if (isEmpty) return console.log("No serve config");
	for (const [hostPort, { Handlers }] of Object.entries(config?.Web ?? {})) {
		const where = config?.AllowFunnel?.[hostPort]
			? "Funnel on"
			: "tailnet only";
		console.log(`https://${hostPort.replace(/:443$/, "")} (${where})`);
		for (const [mount, handler] of Object.entries(Handlers))
			console.log(`|-- ${mount} proxy ${handler.Proxy}`);
		console.log();
	}
}

/** The flags of `up` that set what `debug prefs` shows. */
const prefFlags = {
	ssh: "boolean",
	hostname: "string",
	"advertise-tags": "string",
	"netfilter-mode": "string",
	"shields-up": "boolean",
} as const;

/** cmd/tailscale/cli/up.go: what is not its default has to be said again. */
function up(state: TailscaleState, args: string[]): void {
	const { flags } = parse(args, {
		...prefFlags,
		reset: "boolean",
		"auth-key": "string",
		timeout: "string",
	});
	const { prefs } = state;
	const kept = {
		ssh: prefs.RunSSH ? "" : undefined,
		hostname: prefs.Hostname === "" ? undefined : `=${prefs.Hostname}`,
		"advertise-tags":
			(prefs.AdvertiseTags ?? []).length === 0
				? undefined
				: `=${prefs.AdvertiseTags?.join(",")}`,
		"shields-up": prefs.ShieldsUp ? "" : undefined,
	};
	const isBare = args.length === 0;
	const missing = Object.entries(kept).filter(
		([name, value]) => value !== undefined && flags[name] === undefined,
	);
	if (!isBare && flags.reset === undefined && missing.length > 0)
		throw new Failure(
			`Error: changing settings via 'tailscale up' requires mentioning all
non-default flags. To proceed, either re-run your command with --reset or
use the command below to explicitly mention the current value of
all non-default settings:

	tailscale up ${[...args, ...missing.map(([name, value]) => `--${name}${value}`)].join(" ")}
`,
		);
	if (!isBare) applyPrefs(state, flags);
	state.loggedIn = true;
	prefs.WantRunning = true;
	save(state);
}

function set(state: TailscaleState, args: string[]): void {
	const { flags } = parse(args, {
		ssh: "boolean",
		hostname: "string",
		"shields-up": "boolean",
		"netfilter-mode": "string",
	});
	applyPrefs(state, flags);
	save(state);
}

function applyPrefs({ prefs }: TailscaleState, flags: Record<string, string>) {
	if (flags.ssh !== undefined) prefs.RunSSH = flags.ssh !== "false";
	if (flags["shields-up"] !== undefined)
		prefs.ShieldsUp = flags["shields-up"] !== "false";
	if (flags.hostname !== undefined) prefs.Hostname = flags.hostname;
	const tags = flags["advertise-tags"];
	if (tags !== undefined)
		prefs.AdvertiseTags = tags === "" ? null : tags.split(",");
	const mode = flags["netfilter-mode"];
	if (mode !== undefined)
		prefs.NetfilterMode = ({ off: 0, nodivert: 1 } as const)[mode] ?? 2;
}

function parse(args: string[], known: Record<string, "boolean" | "string">) {
	try {
		return goFlags(args, known);
	} catch (error) {
		throw new Failure((error as Error).message);
	}
}

// Last, when everything above is there.
try {
	await run();
} catch (error) {
	if (!(error instanceof Failure)) throw error;
	console.error(error.message);
	process.exitCode = 1;
}
