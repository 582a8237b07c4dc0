import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { departures } from "../../src/host/gate/departures.ts";
import { judgeProperties } from "../../src/host/gate/sandbox.ts";
import { withPaths } from "../../src/system/installation.ts";

const shipped = await readFile(
	path.join(import.meta.dirname, "../../systemd/llamagate.service"),
	"utf8",
);
const lines = (text: string, setting: string) =>
	[...text.matchAll(new RegExp(`^${setting}=(.*)$`, "gm"))].map(
		([, value = ""]) => value,
	);

/** As `systemctl show` prints a unit (systemd 252). */
const shown = (text: string, more: Record<string, string> = {}) => {
	const [start = ""] = lines(text, "ExecStart");
	return new Map(
		Object.entries({
			ExecStart: commandOf(start),
			InaccessiblePaths: lines(text, "InaccessiblePaths").join(" "),
			BindReadOnlyPaths: lines(text, "BindReadOnlyPaths")
				.flatMap((line) => line.split(" "))
				.map((entry) => {
					const [, dash = "", source = "", target = source] =
						/^(-?)([^:]*)(?::(.*))?$/.exec(entry) ?? [];
					return `${dash}${source}:${target}:rbind`;
				})
				.join(" "),
			Environment: lines(text, "Environment").join(" "),
			PassEnvironment: "",
			...more,
		}),
	);
};
const commandOf = (argv: string) =>
	`{ path=${argv.split(" ")[0]} ; argv[]=${argv} ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; status=0/0 }`;
const found = (more: Record<string, string>, environment = "") =>
	departures(shown(shipped, more), shipped, environment).map(
		({ says }) => says,
	);

t.test("the unit as it is shipped departs from nothing", async (t) => {
	t.strictSame(found({}), []);
	const npm = withPaths(shipped, {
		program: ["/opt/node/bin/node"],
		packageFolder: "/opt/node/lib/node_modules/llamagate",
	} as unknown as Parameters<typeof withPaths>[1]);
	t.strictSame(
		departures(shown(npm), npm, ""),
		[],
		"nor as npm's setup writes it",
	);
	t.strictSame(
		departures(new Map(), shipped, ""),
		[],
		"where systemd is silent",
	);
});

t.test(
	"a drop-in that shows the gate more, or has it run more, is told of",
	async (t) => {
		const [start = ""] = lines(shipped, "ExecStart");
		const values = shown(shipped);
		t.strictSame(
			found({
				ExecStart: commandOf(start.replaceAll(/ --(permission|allow)\S*/g, "")),
				InaccessiblePaths: "",
				BindReadOnlyPaths: `${values.get("BindReadOnlyPaths")} /home:/home:rbind -/root:/r:rbind`,
				Environment: `${values.get("Environment")} "NODE_OPTIONS=--require=/home/x.js --trace-gc"`,
			}),
			[
				"ExecStart is without --permission",
				"InaccessiblePaths is without +/run/dbus, +/run/log, +/run/user, +/run/systemd/resolve, +/run/snapd.socket, +/run/docker.sock, +/var/run/systemd/resolve, +/var/run/snapd.socket, +/var/run/docker.sock, +/var/run/dbus, +/var/run/log, +/var/run/user",
				"BindReadOnlyPaths was shipped without /home, /root:/r",
				"Environment gives it NODE_OPTIONS",
			],
		);
		for (const [changed, says] of [
			[
				start.replace("--permission", "--permission --allow-worker"),
				"ExecStart was shipped without --allow-worker",
			],
			[
				start.replace("/usr/lib/llamagate/app/bin", "/srv"),
				"ExecStart starts /srv/llamagate.js in place of /usr/lib/llamagate/app/bin/llamagate.js",
			],
			[
				start.replace("/usr/lib/llamagate/bin/node", "/usr/bin/node"),
				"ExecStart starts /usr/bin/node in place of /usr/lib/llamagate/bin/node",
			],
		] as const)
			t.strictSame(found({ ExecStart: commandOf(changed) }), [says]);
		t.strictSame(
			found({ PassEnvironment: "TZ LD_PRELOAD" }, "TZ=UTC\nNODE_PATH=/srv\n"),
			[
				"EnvironmentFile gives it NODE_PATH",
				"PassEnvironment gives it LD_PRELOAD",
			],
		);
		t.match(
			judgeProperties(
				shown(shipped, { InaccessiblePaths: "" }),
				[{ file: "/etc/x.conf", text: "[Service]\nInaccessiblePaths=\n" }],
				departures(shown(shipped, { InaccessiblePaths: "" }), shipped, ""),
			),
			{
				state: "finding",
				evidence: [/^InaccessiblePaths is without .*, by \/etc\/x\.conf$/],
			},
		);
	},
);

t.test("a drop-in that takes nothing away is no departure", async (t) => {
	const [start = ""] = lines(shipped, "ExecStart");
	const values = shown(shipped);
	t.strictSame(
		found({
			ExecStart: commandOf(
				`${start.replace(" --permission", " --permission --max-old-space-size=512")} --config /etc/llamagate/other.json`,
			),
			InaccessiblePaths: `${values.get("InaccessiblePaths")} -/srv`,
			Environment: `${values.get("Environment")} TZ=Europe/Berlin NODE_OPTIONS=--max-old-space-size=512`,
		}),
		[],
	);
});
