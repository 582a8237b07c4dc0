import { spawnSync } from "node:child_process";
import dgram from "node:dgram";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";

/**
 * Loaded into the daemon itself, before its own code (`node --import`): tries
 * what somebody would who had taken it over, says what came of each, and lets
 * the daemon go on. "ok" is success; otherwise it is the error's code.
 */
const results = {};

/** @param {string} what @param {() => unknown} act */
async function attempt(what, act) {
	try {
		await act();
		results[what] = "ok";
	} catch (error) {
		results[what] = error.code ?? error.message;
	}
}

/** @param {net.NetConnectOpts} options */
async function connect(options) {
	const socket = net.connect(options);
	try {
		await once(socket, "connect");
	} finally {
		socket.destroy();
	}
}

/** @param {string} file @param {string[]} args */
function execute(file, ...args) {
	const { error, status } = spawnSync(file, args);
	if (error !== undefined) throw error;
	if (status !== 0) throw new Error(`exit ${status}`);
}

/** @param {string} folder @returns {string[]} */
function socketsIn(folder) {
	let entries;
	try {
		entries = fs.readdirSync(folder, { withFileTypes: true });
	} catch {
		return [];
	}
	return entries.flatMap((entry) => {
		const file = path.join(folder, entry.name);
		if (entry.isDirectory()) return socketsIn(file);
		return entry.isSocket() ? [file] : [];
	});
}

await attempt("tcp to loopback", () =>
	connect({ host: "127.0.0.1", port: 11434 }),
);
await attempt("tcp over IPv6", () => connect({ host: "::1", port: 11434 }));
await attempt("tcp listener", async () => {
	const server = net.createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	server.close();
});
await attempt("udp", async () => {
	const socket = dgram.createSocket("udp4").bind(0);
	await once(socket, "listening");
	socket.close();
});

for (const file of [
	"/etc/llamagate/keys.json",
	"/etc/shadow",
	"/etc/passwd",
	"/etc/ssh/sshd_config",
	"/home",
	"/root",
	"/var/log",
	"/var/lib",
	"/proc/1/environ",
	"/usr/bin",
	"/dev/mem",
])
	await attempt(`read ${file}`, () =>
		fs.statSync(file).isDirectory()
			? fs.readdirSync(file)
			: fs.readFileSync(file),
	);

for (const file of [
	"/etc/llamagate/new.json",
	"/etc/llamagate/keys.json",
	"/usr/lib/llamagate/app/new.js",
	"/run/new",
	"/new",
])
	await attempt(`write ${file}`, () =>
		fs.closeSync(
			fs.openSync(file, fs.constants.O_CREAT | fs.constants.O_WRONLY),
		),
	);

for (const file of ["/bin/sh", "/usr/bin/sh", "/usr/bin/curl"])
	await attempt(`run ${file}`, () => execute(file, "-c", ":"));
for (const folder of ["/tmp", "/var/tmp", "/dev/shm", "/run/llamagate"])
	await attempt(`run a file of its own in ${folder}`, () => {
		const file = path.join(folder, "program");
		fs.copyFileSync("/usr/bin/systemd-notify", file);
		fs.chmodSync(file, 0o755);
		execute(file, "--version");
	});
await attempt("run systemd-notify", () =>
	execute("systemd-notify", "--version"),
);

await attempt("become root", () => process.setuid(0));
await attempt("signal init", () => process.kill(1, 0));
results["other processes"] = fs
	.readdirSync("/proc")
	.filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
results["programs in /usr/bin"] = fs.readdirSync("/usr/bin");

const open = [];
for (const file of socketsIn("/run"))
	await connect({ path: file }).then(
		() => open.push(file),
		() => {},
	);
results["sockets that it can open"] = open.sort();

console.log(JSON.stringify({ msg: "sandboxProbe", results }));
