import t from "tap";
import {
	formatSocket,
	isLocalOnly,
	parseListeningSockets,
} from "../../src/host/listeningSockets.ts";
import { formatCommand } from "../../src/host/program.ts";
import { parsePortsOfRoot } from "../../src/host/ssh.ts";
import {
	isKeyEnough,
	parseSettings,
	plainKeys,
	shortcomings,
} from "../../src/host/sshd.ts";
import { parseUnit } from "../../src/host/units.ts";
import { makeNamespace, network } from "../support/namespaces.ts";

// What the tools of Debian 12 really printed, on a host made to be odd.

t.test(
	"every socket that listens is found, by whatever address ss writes",
	async (t) => {
		const sockets =
			parseListeningSockets(`LISTEN 0      128     127.0.0.1:45672 0.0.0.0:* users:(("odd "",pid=7555,fd=4))
LISTEN 0      128    0.0.0.0%lo:45674 0.0.0.0:* users:(("python3",pid=7555,fd=6))
LISTEN 0      128         [::1]:45673    [::]:* users:(("python3",pid=7555,fd=5))
LISTEN 0      128          *%lo:45675       *:* users:(("python3",pid=7555,fd=7))
LISTEN 0      128          [::]:45676    [::]:* users:(("python3",pid=7555,fd=8))
LISTEN 0      128             *:45671       *:* users:(("python3",pid=7555,fd=3))
LISTEN 0      4096   [fd7a:115c:a1e0::104]%tailscale0:11434 [::]:* users:(("node",pid=9,fd=21),("systemd",pid=1,fd=50),("node",pid=10,fd=21))
LISTEN 0      511    100.101.102.104:443 0.0.0.0:*
`);
		t.strictSame(sockets.map(formatSocket), [
			"127.0.0.1:45672",
			"0.0.0.0%lo:45674 (python3)",
			"[::1]:45673 (python3)",
			"*%lo:45675 (python3)",
			"[::]:45676 (python3)",
			"*:45671 (python3)",
			"[fd7a:115c:a1e0::104]%tailscale0:11434 (node, systemd)",
			"100.101.102.104:443",
		]);
		t.strictSame(
			sockets.filter(isLocalOnly).map(({ port }) => port),
			[45672, 45673],
			"of which only these are for this host alone",
		);
		t.strictSame(parseListeningSockets(""), []);
	},
);

t.test(
	"a port counts as sshd's only where root listens, whatever a program calls itself",
	async (t) => {
		t.strictSame(
			parsePortsOfRoot(`  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1060 1 0000000000000000 100 0 0 10 0
   1: 0100007F:B3AF 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534        0 6158495 1 0000000000000000 100 0 0 10 0
   2: 0100007F:08AE 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0000000000000000 100 0 0 10 0
`),
			[22],
		);
		t.strictSame(
			parsePortsOfRoot(`  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:08AE 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0`),
			[2222],
		);
	},
);

t.test(
	"a program of a user's that calls itself sshd gets no port opened",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		for (const [port, user] of [
			["2222", "0"],
			["4444", "65534"],
		] as const) {
			const { stdout } = server.start(
				...["python3", "-uc"],
				`import os, socket, sys, time
open("/proc/self/comm", "w").write("sshd")
os.setuid(int(sys.argv[2]))
held = socket.create_server(("", int(sys.argv[1])))
print("listening")
time.sleep(3600)`,
				port,
				user,
			);
			await new Promise((resolve) => stdout.once("data", resolve));
		}
		const { stdout } = await server.run(
			...[process.execPath, "--input-type=module", "--eval"],
			`import { listeningSockets } from "${import.meta.resolve("../../src/host/listeningSockets.ts")}";
			import { sshPorts } from "${import.meta.resolve("../../src/host/ssh.ts")}";
			const named = await listeningSockets();
			console.log(JSON.stringify({
				named: named.filter(({ programs }) => programs.includes("sshd")).map(({ port }) => port),
				ports: await sshPorts(),
			}));`,
		);
		const { named, ports } = JSON.parse(stdout);
		t.strictSame(named.sort(), [2222, 4444], "both are called so");
		t.ok(ports.includes(2222));
		t.notOk(ports.includes(4444));
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

t.test("sshd may ask for more than a key", async (t) => {
	t.ok(isKeyEnough("any"));
	t.ok(isKeyEnough("publickey,keyboard-interactive publickey"));
	t.notOk(isKeyEnough("publickey,keyboard-interactive"));
	t.notOk(isKeyEnough("password"));
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
