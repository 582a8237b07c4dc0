import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { tellDoctorCounts } from "../../src/admin/doctorCounts.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import {
	bearer,
	eventually,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { startHost, startWithHosts } from "../support/hosts.ts";
import { ledgerPlace, spawnLedger } from "../support/ledger.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { commonPair } from "../support/tlsRelay.ts";
import { requireTool } from "../support/tools.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

interface Dashboard {
	readonly panels: readonly {
		readonly id: number;
		readonly title: string;
		readonly gridPos: {
			readonly x: number;
			readonly y: number;
			readonly w: number;
			readonly h: number;
		};
		readonly targets: readonly { readonly expr: string }[];
	}[];
}

const [user] = testEntries as [KeyEntry];
const expires = "2099-01-01T00:00:00Z";

async function metricsOf({ folder }: TestGate): Promise<string> {
	return (await askDaemon(`${folder}/admin.sock`, "GET /metrics")).body;
}

/** What a gate says that has everything: a queue, a ledger, budgets, keys that expire, a doctor. */
async function fullMetrics(t: Teardown): Promise<string> {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const gate = await startGate(t, {
		config: { ledger: place.section, queue: { mode: "fair", parallel: 1 } },
		keys: [
			{ ...user, expires, budget: { requests: 4, per: "day" } },
			...testEntries.slice(1),
		],
	});
	const reply = await fetch(`${gate.url}/api/generate`, {
		method: "POST",
		headers: bearer(testKeys.user),
		body: JSON.stringify({ model: "qwen3:8b", prompt: "a" }),
	});
	await reply.arrayBuffer();
	await gate.logged(({ msg }) => msg === "request");
	const line = tellDoctorCounts({
		atMs: 1_700_000_000_000,
		findings: { critical: 0, high: 2, warn: 3, info: 0 },
	});
	await askDaemon(`${gate.folder}/admin.sock`, line);
	await eventually(async () =>
		/^llamagate_ledger_requests_written_total 1$/m.test(await metricsOf(gate)),
	);
	return metricsOf(gate);
}

/** What a gate says of HTTPS besides. */
async function tlsMetrics(t: Teardown): Promise<string> {
	const { cert, key } = await commonPair(t);
	const gate = await startGate(t, {
		config: { listen: { tls: { certFile: "gate.crt", keyFile: "gate.key" } } },
		files: { "gate.crt": cert, "gate.key": key },
	});
	return metricsOf(gate);
}

/** What a gate says of several hosts besides. */
async function hostMetrics(t: Teardown): Promise<string> {
	const { name, url } = await startHost(t, "a");
	const gate = await startWithHosts(t, [{ name, url }]);
	return metricsOf(gate);
}

/** Labels of each metric. */
function labelsIn(metrics: string): Map<string, Set<string>> {
	const known = new Map<string, Set<string>>();
	for (const [, name = "", labels = ""] of metrics.matchAll(
		/^(llamagate_\w+)(?:\{(.*)\})? \S+$/gm,
	)) {
		const seen = known.get(name) ?? new Set();
		for (const [, label = ""] of labels.matchAll(/(\w+)="/g)) seen.add(label);
		known.set(name, seen);
	}
	return known;
}

/** Prometheus adds these to what it gets. */
const targetLabels = ["job", "instance"];

/** What of queries names a metric, or chooses by a label, that there is not. */
function unknownIn(queries: string, metrics: string): string[] {
	const known = labelsIn(metrics);
	return [...queries.matchAll(/\b(llamagate_\w+)(?:\{([^}]*)\})?/g)].flatMap(
		([, name = "", chosen = ""]) => {
			const labels = known.get(name);
			if (labels === undefined) return [name];
			return [...chosen.matchAll(/(\w+)\s*(?:=|!)/g)]
				.map(([, label = ""]) => label)
				.filter((label) => !labels.has(label) && !targetLabels.includes(label))
				.map((label) => `${name}{${label}}`);
		},
	);
}

async function dashboard(): Promise<Dashboard> {
	const text = await readFile("monitoring/grafana/llamagate.json", "utf8");
	return JSON.parse(text) as Dashboard;
}

const expressions = ({ panels }: Dashboard) =>
	panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));

t.test(
	"the dashboard and the alerts ask for what a gate tells, and Prometheus likes how",
	async (t) => {
		const metrics = await fullMetrics(t);
		t.match(metrics, /^llamagate_upstream_up 1$/m);
		t.match(metrics, /^llamagate_budget_used_ratio\{key="user"\} 0.25$/m);
		t.match(
			metrics,
			`llamagate_key_expiry_timestamp_seconds{key="user"} ${Date.parse(expires) / 1000}\n`,
		);
		t.match(metrics, 'llamagate_doctor_findings{severity="high"} 2\n');

		const file = "monitoring/prometheus/llamagate.rules.yml";
		const rules = (await readFile(file, "utf8")).replaceAll(/^\s*#.*$/gm, "");
		const asked = `${rules}\n${expressions(await dashboard()).join("\n")}`;
		const all = metrics + (await tlsMetrics(t)) + (await hostMetrics(t));
		t.strictSame(unknownIn(asked, all), []);
		t.strictSame(unknownIn('llamagate_streams{key="a"}', metrics), [
			"llamagate_streams{key}",
		]);
		const shown = expressions(await dashboard()).join("\n");
		t.strictSame(
			[...labelsIn(metrics).keys()].filter((name) => !shown.includes(name)),
			[],
			"the dashboard shows all of them",
		);

		if (!requireTool(t, "promtool")) return;
		const judged = spawnSync("promtool", ["check", "metrics"], {
			input: metrics,
			encoding: "utf8",
		});
		t.strictSame(
			[judged.status, judged.stdout, judged.stderr],
			[0, "", ""],
			"promtool has nothing against them",
		);
	},
);

t.test("Prometheus can read each query of the dashboard", async (t) => {
	if (!requireTool(t, "promtool")) return;
	const queries = expressions(await dashboard()).map((expr, index) => ({
		record: `query:${index}`,
		expr: expr
			.replaceAll("$__rate_interval", "5m")
			.replaceAll(/\$(job|instance)/g, ".*"),
	}));
	const file = path.join(await temporaryFolder(t), "queries.json");
	await writeFile(
		file,
		JSON.stringify({ groups: [{ name: "queries", rules: queries }] }),
	);
	const { status, stdout, stderr } = spawnSync(
		"promtool",
		["check", "rules", file],
		{ encoding: "utf8" },
	);
	t.equal(status, 0, stdout + stderr);
});

t.test("no panel lies on another", async (t) => {
	const { panels } = await dashboard();
	t.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
	const taken = new Map<string, string>();
	for (const { title, gridPos } of panels) {
		t.ok(gridPos.x + gridPos.w <= 24, title);
		for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1)
			for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
				t.equal(taken.get(`${x} ${y}`), undefined, `${title} at ${x} ${y}`);
				taken.set(`${x} ${y}`, title);
			}
	}
});

t.test("a gate takes no counts of doctor's that are none", async (t) => {
	const gate = await startGate(t);
	const tell = (query: string) =>
		askDaemon(`${gate.folder}/admin.sock`, `POST /doctor?${query}`);
	for (const query of [
		"",
		"at=1&critical=0&high=0&warn=0",
		"at=1&critical=0&high=0&warn=0&info=-1",
		"at=soon&critical=0&high=0&warn=0&info=0",
		`at=1&critical=0&high=0&warn=0&info=${"9".repeat(400)}`,
	])
		t.equal((await tell(query)).status, 400, query);
	t.notMatch(await metricsOf(gate), "doctor");
});

t.test("a gate tells whether Ollama answered last", async (t) => {
	const gate = await startGate(t, { upstreamUrl: "http://127.0.0.1:9" });
	t.match(await metricsOf(gate), /^llamagate_upstream_up 1$/m);
	await (
		await fetch(`${gate.url}/api/tags`, { headers: bearer(testKeys.user) })
	).text();
	t.match(await metricsOf(gate), /^llamagate_upstream_up 0$/m);
	await gate.writeConfig({ upstream: { url: gate.standIn.url } });
	await gate.daemon.reload();
	await (
		await fetch(`${gate.url}/api/tags`, { headers: bearer(testKeys.user) })
	).text();
	t.match(await metricsOf(gate), /^llamagate_upstream_up 1$/m);
});
