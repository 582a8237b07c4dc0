import t from "tap";
import { judgePublished } from "../../src/host/firewall/docker.ts";
import type { Address } from "../../src/net/ranges.ts";
import { parseIptables } from "../../src/netfilter/iptables.ts";
import type { Container } from "../../src/system/docker.ts";

type Ports = NonNullable<Container["NetworkSettings"]>["Ports"];

/** A container as `docker container inspect` shows it: what it was told to publish, and what it does. */
const container = (
	name: string,
	asked: Ports,
	published: Ports = asked,
): Container => ({
	...{ Id: name, Name: `/${name}`, State: { Running: true } },
	...{ Config: { Image: name }, NetworkSettings: { Ports: published ?? null } },
	HostConfig: {
		...{ NetworkMode: "bridge", Binds: null, PortBindings: asked ?? null },
		RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
	},
});

const everywhere = (HostPort: string) => [
	{ HostIp: "0.0.0.0", HostPort },
	{ HostIp: "::", HostPort },
];

/** What doctor says with Docker's rules for some ports: `tcp 32768 172.17.0.2:80`. */
function judge(all: readonly Container[], ...led: string[]) {
	const chains = (table: string, text: string) =>
		parseIptables(text, "iptables", table, "ipv4");
	const nat = led.map((one) => {
		const [protocol, port, to] = one.split(" ");
		return `-A DOCKER ! -i docker0 -p ${protocol} -m ${protocol} --dport ${port} -j DNAT --to-destination ${to}`;
	});
	return judgePublished(
		{
			baseChains: [
				...chains("filter", "-P INPUT DROP\n-P FORWARD ACCEPT"),
				...chains(
					"nat",
					`-P PREROUTING ACCEPT\n-N DOCKER\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n${nat.join("\n")}`,
				),
			],
			...{ outside: ["eth0"], families: ["ipv4"], unread: [] },
		},
		all,
		(address: Address) => address.toString() === "192.0.2.1",
	);
}

t.test("a port that Docker chose is its container's", async (t) => {
	// docker run -p 80, and docker run -P
	const all = [
		container(
			"web",
			{ "80/tcp": [{ HostIp: "", HostPort: "" }] },
			{ "80/tcp": everywhere("32768") },
		),
		container("db", {}, { "5432/tcp": everywhere("32769") }),
	];
	const led = judge(
		all,
		"tcp 32768 172.17.0.2:80",
		"tcp 32769 172.17.0.3:5432",
	);
	t.match(led.evidence, [
		/port 32768 leads .*the container web: iptables/,
		/port 32769 leads .*the container db: iptables/,
	]);
	t.equal(
		led.fix,
		"make the container web anew with -p 127.0.0.1:32768:80 && make the container db anew with -p 127.0.0.1:32769:5432",
	);
	const unled = judge(all);
	t.match(unled.evidence, [
		/^the container web is published on 0\.0\.0\.0:32768; no rule/,
		/^the container db is published on 0\.0\.0\.0:32769; no rule/,
	]);
	t.equal(unled.evidence.length, 2, "once for both families");
	t.match(
		judge([
			container("six", {}, { "80/tcp": [{ HostIp: "::", HostPort: "80" }] }),
		]).evidence,
		[/^the container six is published on \[::\]:80;/],
	);
});

t.test("a port of TCP is not the same port of UDP", async (t) => {
	const all = [
		container("names", { "53/udp": everywhere("53") }),
		container("other", { "53/tcp": everywhere("53") }),
	];
	const led = judge(all, "tcp 53 172.17.0.3:53");
	t.match(led.evidence, [
		/the container other: iptables/,
		/^the container names is published .*no rule of Docker's/,
	]);
	t.equal(
		led.fix,
		"make the container other anew with -p 127.0.0.1:53:53 && make the container names anew with -p 127.0.0.1:53:53/udp",
	);
});

t.test("what is stopped or on loopback is not published", async (t) => {
	t.equal(
		judge([
			{
				...container("stopped", { "80/tcp": everywhere("80") }),
				State: { Running: false },
			},
			container("local", {
				"80/tcp": [{ HostIp: "127.0.0.1", HostPort: "80" }],
			}),
		]).state,
		"ok",
	);
	t.equal(judgeNone().state, "absent");
});

function judgeNone() {
	return judgePublished(
		{ baseChains: [], outside: ["eth0"], families: ["ipv4"], unread: [] },
		undefined,
		() => false,
	);
}
