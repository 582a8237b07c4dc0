import { copyFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import {
	isAccepted,
	plainKeys,
	readListing,
} from "../../src/host/sshd/authorizedKeys.ts";
import {
	isKeyEnough,
	parseSettings,
	shortcomings,
} from "../../src/host/sshd/step.ts";
import { inOneLook } from "../../src/system/memo.ts";
import { formatCommand, hasProgram, runProgram } from "../../src/system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	parseSockets,
} from "../../src/system/sockets.ts";
import { parseUnit } from "../../src/system/units.ts";
import { becomesTrue } from "../../src/system/waiting.ts";
import { makeNamespace, network } from "../support/namespaces.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

// What the tools of Debian 12 really printed, on a host made to be odd.

t.test(
	"every socket that listens is found, by whatever address ss writes",
	async (t) => {
		const sockets =
			parseSockets(`udp UNCONN 0      0         0.0.0.0:45677 0.0.0.0:* ino:1062 sk:9 cgroup:/user.slice/a uid:5 ino:6 <->
tcp LISTEN 0      128     127.0.0.1:45672 0.0.0.0:* ino:1060 sk:1 cgroup:/ <->
tcp LISTEN 0      128    0.0.0.0%lo:45674 0.0.0.0:* uid:65534 ino:7555 sk:1001 cgroup:/ <->
tcp LISTEN 0      128         [::1]:45673    [::]:* ino:7556 sk:2 cgroup:/ v6only:1 <->
tcp LISTEN 0      128          *%lo:45675       *:* ino:7557 sk:3 cgroup:/ v6only:0 <->
tcp LISTEN 0      128          [::]:45676    [::]:* ino:7558 sk:4 cgroup:/ v6only:1 <->
tcp LISTEN 0      128             *:45671       *:* ino:7559 sk:5 cgroup:/ v6only:0 <->
tcp LISTEN 0      4096   [fd7a:115c:a1e0::104]%tailscale0:11434 [::]:* ino:0 sk:6 cgroup:unreachable:e1 v6only:1 <->
tcp LISTEN 0      511    100.101.102.104:443 0.0.0.0:*      uid:1000 ino:7560 sk:7 <->
`);
		t.strictSame(
			sockets.map((socket) => formatSocket({ ...socket, programs: [] })),
			[
				"0.0.0.0:45677/udp",
				"127.0.0.1:45672",
				"0.0.0.0%lo:45674",
				"[::1]:45673",
				"*%lo:45675",
				"[::]:45676",
				"*:45671",
				"[fd7a:115c:a1e0::104]%tailscale0:11434",
				"100.101.102.104:443",
			],
		);
		t.strictSame(
			sockets.filter(isLocalOnly).map(({ port }) => port),
			[45672, 45673],
			"of which only these are for this host alone",
		);
		t.strictSame(
			sockets.map(({ uid, inode }) => `${uid} ${inode}`),
			[
				...["0 1062", "0 1060", "65534 7555", "0 7556", "0 7557"],
				...["0 7558", "0 7559", "0 0", "1000 7560"],
			],
		);
		t.strictSame(parseSockets(""), []);
		for (const line of [
			"tcp LISTEN 0 128",
			"tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* sk:1 <->",
		])
			t.throws(() => parseSockets(`${line}\n`), /cannot be read/);
	},
);

/** Listens until it is killed: `PROGRAM FILE ADDRESS PORT USER NAME`. */
const listener = `import os, socket, sys, time
address, port, user, name = sys.argv[1:]
open("/proc/self/comm", "w").write(name)
os.setuid(int(user))
held = socket.create_server((address, int(port)))
print("listening")
time.sleep(3600)`;

t.test(
	"what a program calls itself changes neither whose its socket is nor what is let in",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const folder = await temporaryFolder(t);
		const { stdout: python } = await server.run(
			...["python3", "-c", "import sys; print(sys.executable, end='')"],
		);
		const sshd = `${folder}/sshd`;
		await copyFile(python, sshd);
		const own: string[] = [];
		const start = async (
			program: string,
			place: readonly [address: string, port: string],
			user: string,
			name: string,
		) => {
			const child = server.start(
				...[program, "-uc", listener, ...place, user, name],
			);
			await new Promise((resolve) => child.stdout.once("data", resolve));
			own.push(`${place.join(":")} ${child.pid}`);
		};
		await start(sshd, ["127.0.0.1", "2222"], "0", "sshd");
		await start(python, ["127.0.0.2", "2222"], "65534", "sshd");
		await start(sshd, ["127.0.0.1", "3333"], "65534", "sshd");
		await start(python, ["127.0.0.1", "4444"], "0", "sshd");
		await start(python, ["127.0.0.1", "5555"], "65534", 'a",pid=1,fd=3');
		await start(python, ["127.0.0.1", "6666"], "65534", "x\ny");
		const { stdout, stderr } = await server.run(
			...[process.execPath, "--input-type=module", "--eval"],
			`import { listeningSockets } from "${import.meta.resolve("../../src/system/sockets.ts")}";
			import { sshPorts, sshSockets } from "${import.meta.resolve("../../src/host/sshd/inspect.ts")}";
			const sockets = await listeningSockets();
			const place = ({ address, port }) => address + ":" + port;
			console.log(JSON.stringify({
				owners: sockets.map((one) => [place(one), ...one.pids].join(" ")),
				names: Object.fromEntries(sockets.map(({ port, programs }) => [port, programs])),
				ssh: (await sshSockets(sockets)).map(place),
				ports: await sshPorts(),
			}));`,
		);
		const { owners, names, ssh, ports } = JSON.parse(stdout || stderr);
		t.strictSame(owners.sort(), own.sort(), "each has its one owner");
		t.strictSame(names["5555"], ['a",pid=1,fd=3']);
		t.strictSame(names["6666"], ["x y"]);
		t.strictSame(ssh, ["127.0.0.1:2222"], "a socket of root's own sshd");
		t.ok(ports.includes(2222));
		for (const port of [3333, 4444]) t.notOk(ports.includes(port));
	},
);

t.test("a unit's variables are read as systemd quotes them", async (t) => {
	const unit = parseUnit(
		"odd.service",
		String.raw`Environment=PLAIN=1 "SPACED=a b" "DOLLAR=\$x" "QUOTE=say \"hi\"" "SINGLE=it's" "BACK=a\\b" "TAB=a\tb" "NL=a\nb" EMPTY= "STAR=*;|&" HASH=#x UNI=grün PCT=100% URL=http://127.0.0.1:11434 "BANG=a!b" TILDE=~x EQ=a=b=c
EnvironmentFiles=/etc/default/od d (ignore_errors=yes)
EnvironmentFiles=/etc/default/ollama (ignore_errors=no)
LoadState=loaded
ActiveState=inactive
FragmentPath=/etc/systemd/system/odd.service
DropInPaths="/etc/systemd/system/odd.service.d/10 x.conf" /etc/systemd/system/odd.service.d/20-y.conf
UnitFileState=static
`,
	);
	t.strictSame(Object.fromEntries(unit.environment), {
		PLAIN: "1",
		SPACED: "a b",
		DOLLAR: "$x",
		QUOTE: 'say "hi"',
		SINGLE: "it's",
		BACK: "a\\b",
		TAB: "a\tb",
		NL: "a\nb",
		EMPTY: "",
		STAR: "*;|&",
		HASH: "#x",
		UNI: "grün",
		PCT: "100%",
		URL: "http://127.0.0.1:11434",
		BANG: "a!b",
		TILDE: "~x",
		EQ: "a=b=c",
	});
	t.strictSame(unit.environmentFiles, [
		"/etc/default/od d",
		"/etc/default/ollama",
	]);
	t.strictSame(unit.dropIns, [
		"/etc/systemd/system/odd.service.d/10 x.conf",
		"/etc/systemd/system/odd.service.d/20-y.conf",
	]);
	t.match(unit, { exists: true, isActive: false, isEnabled: true });
});

t.test(
	"a unit that is not there does not exist, and is not enabled",
	async (t) => {
		t.match(
			parseUnit(
				"nope.service",
				"Environment=\nLoadState=not-found\nActiveState=inactive\nFragmentPath=\nDropInPaths=\nUnitFileState=\n",
			),
			{
				exists: false,
				isActive: false,
				isEnabled: false,
				file: "",
				dropIns: [],
			},
		);
		t.equal(
			parseUnit("x", "LoadState=masked\nUnitFileState=masked\n").exists,
			false,
			"nor does one that is masked",
		);
		for (const [state, wanted] of [
			["enabled", true],
			["enabled-runtime", false],
			["linked-runtime", false],
			["disabled", false],
		] as const)
			t.equal(
				parseUnit("x", `LoadState=loaded\nUnitFileState=${state}\n`).isEnabled,
				wanted,
				`${state}: what lies in /run is gone after a boot`,
			);
	},
);

t.test(
	"sshd's settings in force tell what still lets a password in",
	async (t) => {
		const settings = (...lines: string[]) =>
			shortcomings(
				parseSettings(["port 22", "port 2222", ...lines, ""].join("\n")),
			);
		const good = [
			"passwordauthentication no",
			"kbdinteractiveauthentication no",
			"pubkeyauthentication yes",
			"permitrootlogin without-password",
		];
		t.strictSame(settings(...good), []);
		t.strictSame(
			settings(
				"passwordauthentication yes",
				"kbdinteractiveauthentication yes",
				"pubkeyauthentication no",
				"permitrootlogin yes",
			),
			[
				"PasswordAuthentication no",
				"KbdInteractiveAuthentication no",
				"PubkeyAuthentication yes",
				"PermitRootLogin prohibit-password",
			],
		);
		t.strictSame(
			settings(...good.slice(1)),
			["PasswordAuthentication no"],
			"what is not said is not taken for good",
		);
	},
);

t.test(
	"a key that lets in only under conditions is none to rely on",
	async (t) => {
		const key =
			"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hZk0p7kq3cA6y0m1n2b3v4c5x6z7a8s9d0f1g2h3j me@laptop";
		for (const [line, counts] of [
			[key, true],
			[`no-port-forwarding,no-pty ${key}`, true],
			[`# ${key}`, false],
			[`command="echo 'Please login as \\"ubuntu\\"'" ${key}`, false],
			[`restrict,from="10.0.0.0/8" ${key}`, false],
			[`expiry-time="20200101" ${key}`, false],
			[`cert-authority ${key}`, false],
			["", false],
			["no key at all", false],
		] as const)
			t.equal(plainKeys(line).length > 0, counts, line);
		// A file that its owner made to hold others up.
		t.strictSame(
			plainKeys(`${" ".repeat(1_000_000)}x\n${"a ".repeat(100_000)}`),
			[],
		);
	},
);

t.test("a key that sshd refuses is none to rely on", async (t) => {
	// As ssh-keygen of OpenSSH 9.2 lists them; the one for a hardware key has a comment to mislead.
	const keys =
		readListing(`1024 SHA256:6ltGFQjvUuddGprtKfPFsdPZLlqQYCwHsjG06UuCfrQ root@vm (DSA)
256 SHA256:o8KsnS+lzDvNU3SBJC6vTbS+Mk67TEeqxzWf52iOh8c no comment (ECDSA)
521 SHA256:UYWoOGIwh/6mjSG6TdLU9bs2z4bdvHYDhWDEzxQkj6w root@vm (ECDSA)
256 SHA256:JLGuPqQjGhA0qLmiGczGri6jvAu66Ad4fIFlQqqEBdc root@vm (ED25519)
1024 SHA256:3yZukFJnRBwJr0sMp/c7yKA7XkacMblE8E+IVnF0UgA root@vm (RSA)
3072 SHA256:QcAoJR9/EZcjod9IlnmcGh5H4JWL4tq8dwVOTNViOxQ root@vm (RSA)
2048 SHA256:QcAoJR9/EZcjod9IlnmcGh5H4JWL4tq8dwVOTNViOxQ root@vm (RSA-CERT)
256 SHA256:IHA+dUnPki2bvNFmXubmOxIwsqb8z/mMTiZjOO+JK/s sk (RSA) (ED25519-SK)
256 SHA256:wIb9AdGOxkR+WBC07Z4aI5dbzCpfhctu7BDl6CbeF30 sk2 (ECDSA-SK)
(stdin) is not a public key file.
`);
	const all = keys.map(({ kind, bits }) => `${kind} ${bits}`);
	t.strictSame(all, [
		...["DSA 1024", "ECDSA 256", "ECDSA 521", "ED25519 256", "RSA 1024"],
		...["RSA 3072", "RSA-CERT 2048", "ED25519-SK 256", "ECDSA-SK 256"],
	]);
	const taken = (settings: string) =>
		keys
			.filter((key) => isAccepted(key, parseSettings(settings)))
			.map(({ kind, bits }) => `${kind} ${bits}`);
	const usual =
		"ssh-ed25519-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";
	const usualKeys = all.filter((key) => !/^DSA|CERT/.test(key));
	t.strictSame(taken(`pubkeyacceptedalgorithms ${usual}`), usualKeys);
	t.strictSame(
		taken(`pubkeyacceptedkeytypes ${usual},ssh-dss`),
		all.filter((key) => !/CERT/.test(key)),
		"the setting's name before OpenSSH 8.5",
	);
	t.strictSame(
		taken(`pubkeyacceptedalgorithms ${usual}\nrequiredrsasize 2048`),
		usualKeys.filter((key) => key !== "RSA 1024"),
	);
	t.strictSame(taken("pubkeyacceptedalgorithms ssh-ed25519"), ["ED25519 256"]);
	t.strictSame(
		taken("pubkeyacceptedalgorithms ecdsa-sha2-nistp521,ssh-rsa"),
		["ECDSA 521"],
		"a client signs nothing by SHA-1",
	);
	t.strictSame(
		taken(`pubkeyacceptedalgorithms ${usual}\nrequiredrsasize many`),
		usualKeys.filter((key) => !/^RSA/.test(key)),
		"what cannot be read is not taken for good",
	);
	t.strictSame(taken("port 22"), [], "nor what is not told");
});

t.test("sshd may ask for more than a key", async (t) => {
	t.ok(isKeyEnough("any"));
	t.ok(isKeyEnough("publickey,keyboard-interactive publickey"));
	t.notOk(isKeyEnough("publickey,keyboard-interactive"));
	t.notOk(isKeyEnough("password"));
});

t.test("what a program prints is kept within bounds", async (t) => {
	for (const where of ["", " >&2"]) {
		const much = await runProgram([
			...["sh", "-c", `head -c 40000000 /dev/zero${where}; exec sleep 3600`],
		]);
		t.equal(much.code, 125);
		t.ok(much.stdout.length + much.stderr.length < 20 * 2 ** 20);
		t.match(much.stderr.slice(-40), /more than 16 MiB of output\n$/);
	}
	t.strictSame(
		await runProgram(["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"]),
		{ code: 0, stdout: "x".repeat(1_000_000), stderr: "" },
	);
});

t.test("one look asks a program once", async (t) => {
	const file = path.join(await temporaryFolder(t), "runs");
	const command = ["sh", "-c", 'echo run >>"$0"; wc -l <"$0"', file];
	const count = async () => Number((await runProgram(command)).stdout);
	await inOneLook(async () => {
		t.strictSame(await Promise.all([count(), count()]), [1, 1]);
		t.equal(await count(), 1);
		t.ok(
			await becomesTrue(async () => (await count()) === 3),
			"what waits for a change sees it",
		);
		t.equal(await count(), 1, "and the look goes on as it was");
	});
	t.equal(await count(), 4, "no look, nothing is kept");
	t.equal(await inOneLook(count), 5, "nor for the next look");
});

t.test("a program is one that can be run", async (t) => {
	t.ok(await hasProgram("sh"));
	t.notOk(await hasProgram("no-such-program"));
	t.notOk(await hasProgram("."), "a folder is none");
});

t.test("a command is shown without a container's secrets", async (t) => {
	t.equal(
		formatCommand([
			...["docker", "run", "-e", "DATABASE_URL=postgres://u:hunter2@db/x"],
			...["-e", "API_KEY1=hunter2\nhunter2", "-e", "PORT=8080"],
			...["--label", "auth=admin:hunter2", "image", "a=b"],
		]),
		"docker run -e DATABASE_URL=... -e API_KEY1=... -e PORT=8080 --label auth=... image a=b",
	);
});
