import t from "tap";
import {
	changesSince,
	describeChange,
	priorityOf,
} from "../../src/doctor/lastResult.ts";
import { formatAge } from "../../src/report/duration.ts";
import type { Result } from "../../src/report/result.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import { runDoctor, stateOf } from "../support/doctor.ts";

t.test(
	"the daily run tells what has changed, and status what it found",
	booting(),
	async (t) => {
		const host = await bootHost(t);
		await host.plugTailnet();
		await host.sh(
			`until ss -Hltn sport = 11434 | grep -q 100.101.102.104 &&
				systemctl --quiet is-active llamagate.service; do sleep 0.1; done`,
		);
		t.match(await host.run("llamagate", "status"), {
			stdout: / {6}doctor: has not looked yet/,
		});

		const run = "systemctl start llamagate-doctor.service";
		const said = async () =>
			(await host.journal("llamagate-doctor.service")).filter(
				(line) => !/^(Starting|Finished|llamagate-doctor\.service:)/.test(line),
			);
		await host.sh(run);
		const first = await said();
		t.ok(
			first.some((line) => /^boot\.clock: is unknown: /.test(line)),
			first.join("\n"),
		);
		t.equal(
			await host.sh("stat -c '%a %U:%G' /var/lib/llamagate/doctor.json"),
			"600 root:root\n",
		);
		// The service sees what a shell sees.
		const kept = JSON.parse(
			await host.read("/var/lib/llamagate/doctor.json"),
		) as { results: Parameters<typeof stateOf>[0][] };
		const shell = await runDoctor(host);
		t.strictSame(
			kept.results.map((result) => `${result.id} ${stateOf(result)}`),
			shell.map((result) => `${result.id} ${stateOf(result)}`),
		);

		t.match(
			await host.sh(
				"curl --silent --unix-socket /run/llamagate/admin.sock http://x/metrics",
			),
			/^llamagate_doctor_last_run_timestamp_seconds \d{10}.*[\s\S]*^llamagate_doctor_findings\{severity="critical"\} \d+$/m,
			"the gate's counters say what it found",
		);
		t.match(
			await host.sh("systemctl show llamagate-doctor -p MemoryMax,TasksMax"),
			/^MemoryMax=536870912\nTasksMax=256$/m,
			"whatever it reads, the host goes on",
		);
		await host.sh(run);
		t.strictSame(await said(), first, "it is silent where nothing changes");
		await host.sh(`tailscale funnel --bg 9000 >/dev/null; ${run}; ${run}`);
		const second = (await said()).slice(first.length);
		t.equal(second.length, 1, second.join("\n"));
		t.match(
			second[0],
			/^tailscale\.funnel: was in order, is high: the internet reaches .* \| to do: sudo tailscale funnel --https=443 off$/,
		);
		t.match(
			await host.sh("journalctl -u llamagate-doctor -p err -o cat"),
			/^tailscale\.funnel/m,
			"it has the priority of what it says",
		);
		t.notMatch(
			await host.sh("journalctl -u llamagate-doctor -p err -o cat"),
			/^boot\.clock/m,
		);

		const status = await host.run("llamagate", "status");
		t.equal(status.code, 1, "a finding needs attention");
		t.match(status.stdout, /ok {4}gate: llamagate \S+, process \d+, up for/);
		t.match(status.stdout, /ok {4}listening: on 100\.101\.102\.104:11434/);
		t.match(status.stdout, /look {2}doctor: \d+ findings?, worst: high/);
		t.match(status.stdout, / high {2}tailscale\.funnel {2}the internet/);
		await host.sh("tailscale funnel --https=443 off");
		const now = await host.run("llamagate", "doctor", "--changes");
		t.equal(now.code, 0);
		t.match(now.stdout, /^tailscale\.funnel: was high, is in order: .*\n$/);

		// What Ollama's version says is not this test's matter.
		const file = "/var/lib/llamagate/doctor.json";
		const well = JSON.parse(await host.read(file)) as {
			results: { state: string }[];
		};
		for (const result of well.results)
			if (result.state === "finding") result.state = "ok";
		await host.write(file, JSON.stringify(well));
		const fine = await host.run("llamagate", "status", "--json");
		t.equal(fine.code, 0, fine.stdout);
		t.match(JSON.parse(fine.stdout), {
			ok: true,
			gate: { keys: [String], lastReload: { ok: true } },
			doctor: { ageSeconds: Number, findings: [] },
		});

		await host.write(file, '{"at":');
		const broken = await host.run("llamagate", "doctor", "--changes");
		t.equal(broken.code, 0);
		t.match(broken.stderr, /is not a result of doctor's.*it is replaced/);
		await host.write(file, '{"at":');
		t.match(await host.run("llamagate", "status"), {
			code: 1,
			stdout: /look {2}doctor: .* is not a result of doctor's/,
		});

		const other = await host.run(
			...["setpriv", "--reuid=65534", "--clear-groups"],
			...["llamagate", "doctor", "--changes"],
		);
		t.equal(other.code, 1);
		t.match(other.stderr, /needs root/);
		await host.sh("systemctl stop llamagate.socket llamagate.service");
		t.match(await host.run("llamagate", "status"), {
			code: 1,
			stdout: /look {2}gate: no gate answers on/,
		});
	},
);

t.test(
	"whoever watches is told what changes, and nothing else",
	booting(),
	async (t) => {
		const host = await bootHost(t);
		// A look or two go by with nothing to tell.
		const told = await host.sh(`exec 2>&1
			touch /root/watch
			llamagate doctor --watch --every 1s --only tailscale.funnel --only boot.disk >/root/watch &
			watch=$!
			until grep -q "what changes" /root/watch; do sleep 0.1; done
			sleep 2.5
			tailscale funnel --bg 9000 >/dev/null
			until grep -q "was in order" /root/watch; do sleep 0.1; done
			kill -INT $watch
			wait $watch && echo ended well || echo ended with $?
			cat /root/watch`);
		const [end, ...lines] = told.trimEnd().split("\n");
		t.equal(end, "ended with 1", "a finding stands when it ends");
		const from = lines.indexOf("From now on, what changes:");
		t.equal(lines.length, from + 2, told);
		t.match(lines[from - 1], "Nothing found.");
		t.match(
			lines[from + 1],
			/^\d{4}-\d\d-\d\dT[\d:.]+Z {2}tailscale\.funnel: was in order, is high: the internet reaches/,
		);
	},
);

const result = (
	state: Result["state"],
	severity: Result["severity"] = "high",
	evidence: string[] = [],
): Result => ({
	id: "a.b",
	group: "a",
	layer: "host",
	title: "All is well",
	why: "It matters.",
	fix: "sudo mend",
	severity,
	state,
	evidence,
});

t.test("what counts as a change", async (t) => {
	const changed = (before: Result | undefined, now: Result) =>
		changesSince(before === undefined ? [] : [before], [now]).length > 0;
	const [ok, absent, unknown] = (["ok", "absent", "unknown"] as const).map(
		(state) => result(state),
	) as [Result, Result, Result];
	const high = result("finding", "high", ["1"]);
	t.notOk(changed(undefined, ok), "nothing is new where all is well");
	t.notOk(changed(undefined, absent));
	t.ok(changed(undefined, unknown));
	t.ok(changed(undefined, result("finding", "info")));
	t.notOk(changed(high, high));
	t.ok(changed(high, ok));
	t.ok(changed(high, unknown), "what is not to be seen any more is no pass");
	t.ok(changed(ok, absent));
	t.ok(changed(high, result("finding", "critical", ["1"])));
	t.ok(changed(high, result("finding", "high", ["1", "2"])), "one more");
	t.notOk(
		changed(
			result("finding", "warn", ["90 MiB are free"]),
			result("finding", "warn", ["89 MiB are free"]),
		),
	);
	t.notOk(changed(result("ok", "high", ["1"]), result("ok", "high", ["2"])));
	t.strictSame(changesSince([ok], []), [], "a check that is no more");
});

t.test("a change is one line, whatever is in it", async (t) => {
	const change = {
		before: result("ok"),
		now: {
			...result("finding", "critical", ["evil\u001b[2J\nname", "two"]),
			fix: "sudo one\nsudo two",
		},
	};
	t.equal(
		describeChange(change),
		"a.b: was in order, is critical: evil<U+001B>[2J; name; two | to do: sudo one; sudo two",
	);
	t.equal(priorityOf(change), "<2>");
	t.equal(
		describeChange({ before: undefined, now: result("unknown") }),
		"a.b: is unknown: All is well",
	);
});

t.test("ages are short", async (t) => {
	for (const [seconds, wanted] of [
		[-5, "0 s"],
		[119, "119 s"],
		[120, "2 min"],
		[7_200, "2 h"],
		[172_800, "2 d"],
	] as const)
		t.equal(formatAge(seconds * 1000), wanted);
});
