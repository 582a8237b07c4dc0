import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Test } from "tap";
import type { RunResult } from "../../support/gate.ts";
import { makeNamespace, type Namespace } from "../../support/namespaces.ts";
import { reap } from "../../support/reaper.ts";
import { realParts } from "../parts.ts";
import { type Finding, record } from "../record.ts";

// headscale and its relay (DERP) on a bridge in a network namespace, and devices
// in namespaces of their own with tailscaled. Nothing of it is seen outside: the
// addresses of the bridge are the same in every test.

/** A guard against hanging: a device is in the tailnet after two or three seconds. */
const patienceMs = 60_000;

/** Where headscale listens; behind it the devices' own addresses on the bridge. */
const hub = "10.77.0.1";
const loginServer = `https://${hub}`;

/** Who signs in: alice and bob have an e-mail address, carol has none, as with headscale's own users. */
export const users = ["alice", "bob", "carol"] as const;
export type User = (typeof users)[number];
/** Whose a device is: a user's, or nobody's since it has a tag. */
export type Owner = User | `tag:${string}`;

/** What owns the tags while a test says nothing else; all may reach all. */
export const openPolicy = `{
	"tagOwners": { "tag:gpu": ["alice@"], "tag:client": ["alice@"] },
	"acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }],
}`;

/** A machine of the tailnet. */
export interface Device {
	readonly name: string;
	readonly network: Namespace;
	/** Its addresses in the tailnet. */
	readonly v4: string;
	readonly v6: string;
	/** Runs the command `tailscale` on it. */
	tailscale(...args: string[]): Promise<RunResult>;
	/** Its tailscaled ends, as with the machine; what it knew stays. */
	stop(): Promise<void>;
	/** It starts again. */
	start(): Promise<void>;
}

export interface DeviceOptions {
	readonly owner: Owner;
	/** Whether its tailscaled does without a tunnel device. */
	readonly userspace?: boolean;
}

/** What headscale says of a node. */
export interface NodeEntry {
	readonly id: number;
	readonly name: string;
	readonly ip_addresses: readonly string[];
}

/** A tailnet of a test's own. */
export interface Tailnet {
	/** Has a device, connected and signed in. */
	device(name: string, options: DeviceOptions): Promise<Device>;
	/** Runs headscale's command; gives back what it said, and throws if it failed. */
	headscale(...args: string[]): Promise<string>;
	/** Runs it whether or not it fails. */
	tryHeadscale(...args: string[]): Promise<RunResult>;
	/** Writes a file that headscale can be given. */
	file(name: string, content: string): Promise<string>;
	/** headscale's list of nodes. */
	nodes(): Promise<readonly NodeEntry[]>;
	/** Gives a machine eth0 on the bridge, and a route to headscale. */
	plug(network: Namespace): Promise<void>;
	/** What makes a machine a device: the arguments of `tailscale up`. */
	upArguments(name: string, owner: Owner): readonly string[];
	/** The certificate that tailscaled has to trust. */
	readonly certificate: string;
}

/** Starts headscale with its relay, users and keys. It goes with the test. */
export async function startTailnet(t: Test): Promise<Tailnet> {
	const { program } = realParts();
	const folder = await mkdtemp(path.join(tmpdir(), "llamagate-tailnet-"));
	reap("folder", folder);
	t.teardown(() => rm(folder, { recursive: true, force: true }));
	const inFolder = (name: string) => path.join(folder, name);

	const hubNetwork = await makeNamespace(t);
	await hubNetwork.ip(
		"link add br0 type bridge",
		`addr add ${hub}/16 dev br0`,
		"link set br0 up",
	);

	const certificate = inFolder("certificate.pem");
	await must("openssl", [
		...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
		...["-nodes", "-days", "2", "-subj", "/CN=headscale"],
		...["-addext", `subjectAltName=IP:${hub}`],
		...["-keyout", inFolder("certificate.key"), "-out", certificate],
	]);
	const config = inFolder("headscale.yaml");
	await writeFile(config, JSON.stringify(headscaleConfig(folder)));

	const tryHeadscale = (...args: string[]) =>
		run(program("headscale"), ["--config", config, ...args]);
	const headscale = async (...args: string[]) => {
		const { code, stdout, stderr } = await tryHeadscale(...args);
		if (code !== 0)
			throw new Error(`headscale ${args.join(" ")}: ${stdout}${stderr}`);
		return stdout;
	};
	const serving = hubNetwork.start(
		program("headscale"),
		...["--config", config, "serve"],
	);
	const said = tail(serving);
	await until(
		async () => (await tryHeadscale("users", "list")).code === 0,
		() => `headscale does not answer; it said: ${said()}`,
	);

	const file = async (name: string, content: string) => {
		await writeFile(inFolder(name), content);
		return inFolder(name);
	};
	await headscale(
		...["policy", "set", "--file", await file("open.hujson", openPolicy)],
	);
	const keys = new Map<Owner, string>();
	for (const user of users)
		await headscale(
			...["users", "create", user],
			...(user === "carol" ? [] : ["--email", `${user}@example.com`]),
		);
	const created = JSON.parse(
		await headscale("users", "list", "--output", "json"),
	) as { id: number; name: string }[];
	await Promise.all(
		[...users, "tag:gpu", "tag:client"].map(async (owner) => {
			const user = created.find(({ name }) => name === owner);
			const made = JSON.parse(
				await headscale(
					...["preauthkeys", "create", "--reusable", "--expiration", "24h"],
					...(user === undefined
						? ["--tags", owner]
						: ["--user", String(user.id)]),
					...["--output", "json"],
				),
			) as { key: string };
			keys.set(owner as Owner, made.key);
		}),
	);

	let plugged = 0;
	const tailnet: Tailnet = {
		...{ headscale, tryHeadscale, file, certificate },
		async nodes() {
			const text = await headscale("nodes", "list", "--output", "json");
			return (JSON.parse(text) ?? []) as NodeEntry[];
		},
		async plug(network) {
			const number = ++plugged;
			await hubNetwork.ip(
				`link add v${number} type veth peer name eth0 netns ${network.name}`,
				`link set v${number} master br0 up`,
			);
			await network.ip(
				`addr add 10.77.1.${number}/16 dev eth0`,
				"link set eth0 up",
				`route add default via ${hub}`,
			);
		},
		upArguments: (name, owner) => [
			...["up", "--login-server", loginServer, "--hostname", name],
			...["--auth-key", keys.get(owner) ?? "", "--timeout", "60s"],
		],
		async device(name, { owner, userspace = false }) {
			const network = await makeNamespace(t);
			await tailnet.plug(network);
			const state = inFolder(name);
			await mkdir(state);
			const socket = path.join(state, "tailscaled.sock");
			const tailscale = (...args: string[]) =>
				network.run(program("tailscale"), `--socket=${socket}`, ...args);
			let ended: Promise<unknown> = Promise.resolve();
			let child: ReturnType<Namespace["start"]> | undefined;
			const device = {
				...{ name, network, tailscale },
				...{ v4: "", v6: "" },
				async start() {
					child = network.start(
						// In a mount namespace of its own: what others say on this machine's D-Bus is not for it.
						...["sh", "-euc", 'mount -t tmpfs tmpfs /run; exec "$@"', "sh"],
						...["env", `SSL_CERT_FILE=${certificate}`, `HOME=${state}`],
						program("tailscaled"),
						...["--no-logs-no-support", "--port=41641"],
						...[`--statedir=${state}`, `--socket=${socket}`],
						...(userspace ? ["--tun=userspace-networking"] : []),
					);
					ended = new Promise((resolve) => child?.once("close", resolve));
					const said = tail(child);
					await until(
						async () => (await tailscale("status", "--json")).code === 0,
						() => `tailscaled of ${name} does not answer; it said: ${said()}`,
					);
				},
				async stop() {
					child?.kill();
					await ended;
				},
			};
			await device.start();
			const up = () =>
				tailscale(...tailnet.upArguments(name, owner), "--accept-dns=false");
			const first = await up();
			// Of those that come to headscale at once, one may wait for it in vain, though rarely.
			const last = first.code === 0 ? first : await up();
			if (last.code !== 0)
				throw new Error(
					`${name} does not come up: ${first.stderr}\nThe second time: ${last.stderr}`,
				);
			const { stdout } = await tailscale("ip");
			[device.v4 = "", device.v6 = ""] = stdout.split("\n");
			return device;
		},
	};
	return tailnet;
}

/** JSON is YAML, too. */
function headscaleConfig(folder: string): unknown {
	const inFolder = (name: string) => path.join(folder, name);
	return {
		server_url: loginServer,
		listen_addr: "0.0.0.0:443",
		metrics_listen_addr: "127.0.0.1:9090",
		grpc_listen_addr: "127.0.0.1:50443",
		noise: { private_key_path: inFolder("noise.key") },
		prefixes: {
			...{ v4: "100.64.0.0/10", v6: "fd7a:115c:a1e0::/48" },
			allocation: "sequential",
		},
		derp: {
			server: {
				...{ enabled: true, region_id: 999, ipv4: hub },
				...{ region_code: "test", region_name: "test" },
				...{ stun_listen_addr: "0.0.0.0:3478", verify_clients: true },
				private_key_path: inFolder("derp.key"),
				automatically_add_embedded_derp_region: true,
			},
			...{ urls: [], paths: [], auto_update_enabled: false },
		},
		disable_check_updates: true,
		database: { type: "sqlite", sqlite: { path: inFolder("db.sqlite") } },
		tls_cert_path: inFolder("certificate.pem"),
		tls_key_path: inFolder("certificate.key"),
		log: { level: "info" },
		policy: { mode: "database" },
		dns: {
			...{ magic_dns: true, base_domain: "tailnet.example" },
			...{ override_local_dns: false, nameservers: { global: [] } },
		},
		unix_socket: inFolder("headscale.sock"),
		unix_socket_permission: "0700",
		logtail: { enabled: false },
		// What changes is to be told at once.
		tuning: { batch_change_delay: "50ms", node_store_batch_timeout: "50ms" },
	};
}

/** The end of what a process says on stderr, to be shown if it does not do as it should. */
function tail({ stderr }: ReturnType<Namespace["start"]>): () => string {
	let text = "";
	stderr.on("data", (more: string) => {
		text = (text + more).slice(-4_000);
	});
	return () => text;
}

/** Waits until something is so. */
export async function until(
	isSo: () => Promise<boolean>,
	describe: () => string,
): Promise<void> {
	const deadline = performance.now() + patienceMs;
	while (!(await isSo())) {
		if (performance.now() > deadline) throw new Error(describe());
		await delay(50);
	}
}

function run(file: string, args: readonly string[]): Promise<RunResult> {
	return new Promise((resolve, reject) => {
		execFile(
			file,
			args,
			{ env: { PATH: process.env.PATH }, maxBuffer: 2 ** 26 },
			(error, stdout, stderr) => {
				const code = error === null ? 0 : error.code;
				if (typeof code !== "number") reject(error);
				else resolve({ code, stdout, stderr });
			},
		);
	});
}

async function must(file: string, args: readonly string[]): Promise<void> {
	const { code, stderr } = await run(file, args);
	if (code !== 0) throw new Error(`${file}: ${stderr}`);
}

/** Writes down for docs/compatibility.md what a test has run here. @param subject of the test */
export function recordTailnet(
	subject: string,
	found: Pick<Finding, "ran" | "differs">,
): void {
	const { tailscale, headscale } = realParts().versions;
	record("tailnet", `tailscaled with headscale, ${subject}`, {
		version: `${tailscale} with ${headscale}`,
		...found,
	});
}
