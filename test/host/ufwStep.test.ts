import t, { type Test } from "tap";
import { openServices } from "../../src/host/firewall/step.ts";
import { ufwSetting } from "../../src/netfilter/ufwSettings.ts";
import type { Inspection, Proof } from "../../src/setup/step.ts";
import type { ListeningSocket } from "../../src/system/sockets.ts";
import { temporaryFolder } from "../support/gate.ts";
import { inOneFile } from "../support/inOneFile.ts";
import { network } from "../support/namespaces.ts";
import { requireTool } from "../support/tools.ts";
import { makeUfwHost, type Ufw } from "../support/ufw.ts";

if (!requireTool(t, "ufw", "iptables")) process.exit();

const program = await inOneFile(t, "ufwStepRun");

/** A host with a LAN and a tailnet, and the step of setup that is run on it by itself. */
async function startHost(t: Test) {
	const { ufw } = await makeUfwHost(t);
	const journal = await temporaryFolder(t);
	const step = async <Report>(...task: string[]): Promise<Report> =>
		JSON.parse(
			await ufw.must(process.execPath, program, ...task, `${journal}/setup`),
		) as Report;
	return {
		ufw,
		look: () => step<Inspection>("look"),
		setUp: () => step<Proof[]>("set up"),
		prove: () => step<Proof[]>("prove"),
		undo: () => step<string[]>("undo"),
	};
}

const commandsOf = ({ actions }: Inspection) =>
	actions.map((action) =>
		action.kind === "command" ? action.command.join(" ") : action.kind,
	);

/** Has /etc/default/ufw say that of what no rule speaks of. */
const setPolicy = (ufw: Ufw, line: string) =>
	ufw.must("sed", "-i", `s/^DEFAULT_INPUT_POLICY=.*/${line}/`, settingsFile);
const settingsFile = "/etc/default/ufw";

t.test(
	"a setting of UFW's counts as both of UFW's programs read it, or not at all",
	async (t) => {
		const read = (text: string) => ufwSetting(text, "DEFAULT_INPUT_POLICY");
		const name = "DEFAULT_INPUT_POLICY";
		for (const [text, value] of [
			[`${name}="DROP"`, "DROP"],
			[`${name}=DROP`, "DROP"],
			[`a=b\n${name}=REJECT  \nc=d`, "REJECT"],
			[`# ${name}=ACCEPT\n${name}="DROP"\t`, "DROP"],
			[`${name}="DROP"\n${name}=ACCEPT`, "ACCEPT"],
			["", undefined],
			// ufw itself finds none here, or one that is none.
			[`${name}='DROP'`, undefined],
			[`${name}="DROP" # mine`, undefined],
			[`${name}="DROP`, undefined],
			[`${name}=`, undefined],
			// The shell alone reads these.
			[`${name}=ACCEPT\nexport ${name}=DROP`, undefined],
			[`${name}=ACCEPT\n ${name}=DROP`, undefined],
			[`${name}=ACCEPT; ${name}=DROP`, undefined],
		] as const)
			t.equal(read(text), value, JSON.stringify(text));
	},
);

t.test("what will be shut is named, by UDP too", async (t) => {
	const at = (
		place: string,
		protocol: "tcp" | "udp",
		more: Partial<ListeningSocket> = {},
	): ListeningSocket => {
		const [, address = "", port] = /^(.*):(\d+)$/.exec(place) ?? [];
		return {
			...{ protocol, address, port: Number(port), device: undefined },
			...{ uid: 0, inode: 1, pids: [], programs: [], ...more },
		};
	};
	const named = [
		at("0.0.0.0:8443", "tcp"),
		// WireGuard's is the kernel's own.
		at("0.0.0.0:51820", "udp", { inode: 0 }),
		at("0.0.0.0:8080", "udp"),
		at("0.0.0.0:67", "udp", { device: "virbr0" }),
	];
	const unnamed = [
		at("0.0.0.0:22", "tcp"),
		at("0.0.0.0:11434", "tcp"),
		at("127.0.0.53:53", "udp"),
		at("192.0.2.1:68", "udp"),
		at("0.0.0.0:5353", "udp", { uid: 108 }),
		at("0.0.0.0:41641", "udp", { pids: [7], programs: ["tailscaled"] }),
		at("100.64.0.1:53", "udp", { device: "tailscale0" }),
	];
	t.strictSame(openServices([...unnamed, ...named], [22], 7), [
		"0.0.0.0:8443",
		"0.0.0.0:51820/udp",
		"0.0.0.0:8080/udp",
		"0.0.0.0%virbr0:67/udp",
	]);
});

t.test(
	"a policy without quotes is the policy: SSH is opened to nobody, and undo opens nothing",
	network(),
	async (t) => {
		const { ufw, look, setUp, undo } = await startHost(t);
		const own = "allow from 203.0.113.7 to any port 22 proto tcp";
		await ufw.ufw(own, "allow 5432/tcp", "--force enable");
		await setPolicy(ufw, "DEFAULT_INPUT_POLICY=DROP ");
		await ufw.ufw("reload");
		const planned = commandsOf(await look());
		t.notSame(planned, []);
		t.strictSame(
			planned.filter((line) => /\b22\b|default/.test(line)),
			[],
		);
		for (const proof of await setUp()) t.ok(proof.ok, proof.says);
		// The owner's own change of that file.
		await ufw.must(
			...[
				"sed",
				"-i",
				's/^DEFAULT_FORWARD_POLICY=.*/DEFAULT_FORWARD_POLICY="ACCEPT"/',
			],
			settingsFile,
		);
		t.strictSame(await undo(), []);
		t.strictSame(await ufw.added(), [own, "allow 5432/tcp"]);
		t.match(
			await ufw.must("ufw", "status", "verbose"),
			/^Default: deny \(incoming\)/m,
		);
		t.match(await ufw.must("iptables", "-S", "INPUT"), /^-P INPUT DROP$/m);
	},
);

t.test(
	"a policy that cannot be read for sure is left to the person",
	network(),
	async (t) => {
		const { ufw, look } = await startHost(t);
		for (const line of [
			"DEFAULT_INPUT_POLICY=drop",
			"DEFAULT_INPUT_POLICY='DROP'",
			"# none",
		]) {
			await setPolicy(ufw, line);
			const seen = await look();
			t.match(seen, { state: "unsafe", actions: [] }, line);
			t.match(seen.says, /\/etc\/default\/ufw .*DEFAULT_INPUT_POLICY="DROP"/);
			await ufw.must(
				"sed",
				"-i",
				"/^DEFAULT_INPUT_POLICY\\|^# none$/d",
				settingsFile,
			);
			await ufw.must(
				...["sh", "-c", `echo 'DEFAULT_INPUT_POLICY="DROP"' >>${settingsFile}`],
			);
		}
		t.equal((await look()).state, "todo");
		await setPolicy(ufw, "DEFAULT_INPUT_POLICY=ACCEPT");
		t.ok(commandsOf(await look()).includes("ufw default deny incoming"));
	},
);

/** What it says that is not as it should be, with what to do. */
const faultsOf = (proofs: readonly Proof[]) =>
	proofs.filter(({ ok }) => !ok).map(({ says, advice }) => ({ says, advice }));

t.test(
	"a rule of the owner's that denies the port to one more does not stop setup",
	network(),
	async (t) => {
		const { ufw, setUp } = await startHost(t);
		await ufw.ufw(
			"deny from 192.168.77.66 to any port 11434",
			"allow 22/tcp",
			"--force enable",
		);
		const proofs = await setUp();
		t.strictSame(faultsOf(proofs), []);
		for (const family of ["IPv4", "IPv6"])
			t.ok(
				proofs.some(
					({ says }) =>
						says ===
						`${family}: port 11434 is open on tailscale0 and shut everywhere else`,
				),
				family,
			);
	},
);

t.test(
	"a rule that lets the LAN to the port ahead of UFW's is named, with what to do",
	network(),
	async (t) => {
		const { ufw, setUp, prove } = await startHost(t);
		t.strictSame(faultsOf(await setUp()), []);
		const lan = "-s 192.168.77.0/24";

		await ufw.must(
			..."iptables -I INPUT -s 192.168.77.0/24 -j ACCEPT".split(" "),
		);
		const [byHand, ...rest] = faultsOf(await prove());
		t.strictSame(rest, []);
		t.match(
			byHand?.says,
			/^IPv4: port 11434 is open to others than the tailnet/,
		);
		t.match(byHand?.says, `on eth0: iptables -A INPUT ${lan} -j ACCEPT`);
		t.match(byHand?.advice, `sudo iptables -D INPUT ${lan} -j ACCEPT`);
		await ufw.must(
			..."iptables -D INPUT -s 192.168.77.0/24 -j ACCEPT".split(" "),
		);

		const own = `-A ufw-before-input ${lan} -p tcp --dport 11434 -j ACCEPT`;
		await ufw.must(
			...["sed", "-i", `/^# End required lines/a ${own}`],
			"/etc/ufw/before.rules",
		);
		await ufw.ufw("reload");
		t.match(
			faultsOf(await prove()).map(({ says }) => says),
			[/on eth0: iptables -A ufw-before-input .*--dport 11434 -j ACCEPT$/],
		);
		await ufw.must("sed", "-i", "/dport 11434/d", "/etc/ufw/before.rules");
		await ufw.ufw("reload");
		t.strictSame(faultsOf(await prove()), []);

		await ufw.must("ip6tables", "-F", "INPUT");
		t.match(faultsOf(await prove()), [
			{ says: /^IPv6: nothing leads from INPUT to UFW's rules/ },
		]);
		await ufw.must("iptables", "-I", "INPUT", "-p", "tcp", "-j", "DROP");
		t.match(faultsOf(await prove()), [
			{ says: /^IPv4: port 11434 is shut on tailscale0 too/ },
			{ says: /^IPv6/ },
		]);
	},
);

t.test(
	"where UFW drops all of IPv6, it has no rules for it, and that is in order",
	network(),
	async (t) => {
		const { ufw, setUp } = await startHost(t);
		await ufw.ufw("allow 22/tcp", "--force enable");
		await ufw.must("sed", "-i", "s/^IPV6=.*/IPV6=no/", settingsFile);
		await ufw.ufw("reload");
		t.strictSame(faultsOf(await setUp()), []);
	},
);

/** Both families' rules as UFW keeps them, with their comments, in their order. */
const kept = async (ufw: Ufw) =>
	(await ufw.must("cat", "/etc/ufw/user.rules", "/etc/ufw/user6.rules"))
		.split("\n")
		.filter((line) => line.startsWith("### tuple ###"));

t.test(
	"undo puts a rule back in its place, with its comment, also where others have come since",
	network(),
	async (t) => {
		const { ufw, setUp, undo } = await startHost(t);
		await ufw.ufw(
			"allow 'Web Admin'",
			"allow from 192.168.77.5 to any port 3000",
			"deny 3000 comment 'not for the LAN'",
			"allow from 192.168.77.0/24 comment 'the LAN'",
			"allow from 2001:db8::5 to any port 11434 comment 'backup box'",
			"allow from 2001:db8::/32",
			"allow WebUI",
			"allow 22/tcp",
			"limit 11434/tcp comment 'last'",
			"--force enable",
		);
		const before = await kept(ufw);
		t.strictSame(faultsOf(await setUp()), []);
		const during = await ufw.added();
		for (const gone of ["deny 3000 comment", "backup box", "WebUI", "last"])
			t.notOk(
				during.some((line) => line.includes(gone)),
				`${gone} makes room`,
			);
		// As the owner and fail2ban do.
		await ufw.ufw("allow 9999/tcp", "insert 1 deny from 203.0.113.9");
		t.strictSame(await undo(), []);
		const others = /203\.0\.113\.9| 9999 /;
		const after = await kept(ufw);
		t.equal(after.filter((line) => others.test(line)).length, 3);
		t.strictSame(
			after.filter((line) => !others.test(line)),
			before,
		);
	},
);

t.test(
	"undo says so where a rule cannot come back to its place",
	network(),
	async (t) => {
		const { ufw, setUp, undo } = await startHost(t);
		await ufw.ufw(
			"allow from 192.168.77.0/24",
			"deny 3000",
			"allow 22/tcp",
			"--force enable",
		);
		t.strictSame(faultsOf(await setUp()), []);
		await ufw.ufw("delete allow 22/tcp", "prepend allow 22/tcp");
		t.match(await undo(), [
			/^UFW's rule "deny 3000" is back, and does not stand where it stood/,
		]);
	},
);
