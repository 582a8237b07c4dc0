import t from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import {
	asNobody,
	examine,
	type Findings,
	stateOf,
	statesOf,
} from "../support/doctor.ts";
import { becomes } from "../support/namespaces.ts";
import { installSshKey, runSetup } from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

/** What is as a person may want it, and is told. */
const toKnow = [
	// The host's stand-in calls itself newer than what was run.
	"ollama.tested",
	"firewall.ssh",
	"firewall.tailnet",
	"ollama.cloud",
];
/** What a host in a container does not show, and what wants a key. */
const unseen = ["boot.clock", "gate.key"];

/** A person opens the page, and turns sign-up off. */
async function makeFirstAccount(host: BootedHost): Promise<void> {
	await host.sh(`f=/var/lib/docker-stand-in/state.json
		sed -i 's/"OLLAMA_BASE_URL=http/"ENABLE_SIGNUP=False",&/' $f
		docker restart open-webui
		until curl -s 127.0.0.1:8080/health | grep -q true; do sleep 0.1; done`);
}

/** What setup explains and leaves to the person. */
async function removeApiKey(host: BootedHost): Promise<void> {
	await host.sh(`sed -i /OLLAMA_API_KEY/d /etc/systemd/system/ollama.service.d/*.conf
		systemctl daemon-reload
		systemctl restart ollama
		until curl -s 127.0.0.1:11434/api/version | grep -q version; do sleep 0.1; done`);
}

/** What is not in order, but for what is to be expected. */
function alarms(found: Findings): string[] {
	return [...found.values()]
		.filter((result) => {
			const state = stateOf(result);
			if (state === "info") return !toKnow.includes(result.id);
			if (state === "unknown") return !unseen.includes(result.id);
			return state !== "ok" && state !== "absent";
		})
		.map((result) => `${result.id} ${stateOf(result)}: ${result.evidence[0]}`);
}

t.test(
	"doctor finds a host open, and locked once setup has run",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			ollama: "everywhere",
			docker: "open-webui",
		});
		await installSshKey(host);
		await host.plugPublic();
		await host.plugLan();
		await host.plugTailnet();
		await replayTailscaledRules(host);
		t.match(statesOf(await examine(host, [])), {
			"ollama.listening": "critical",
			"ollama.reachable": "critical",
			"ollama.host": "high",
			"ollama.restart": "high",
			"firewall.active": "high",
			"firewall.default": "high",
			"firewall.ollama-port": "critical",
			"open-webui.loopback": "high",
			"sshd.passwords": "high",
			"gate.units": "high",
		});

		const { code, report } = await runSetup(host, "--yes");
		t.equal(code, 0, JSON.stringify(report, undefined, 2));
		const { key } = report;
		if (key === undefined) throw new Error("setup made no key");
		await makeFirstAccount(host);
		await removeApiKey(host);
		t.strictSame(alarms(await examine(host, [])), [], "no false alarm");

		const whole = await host.run("llamagate", "doctor");
		t.equal(whole.code, 0);
		t.notMatch(whole.stdout, /^(critical|high|warn)/m);

		await t.test("nor for a user who is not root", async (t) => {
			const found = [...(await examine(host, [], asNobody)).values()];
			t.strictSame(
				found
					.filter((result) =>
						["critical", "high", "warn"].includes(stateOf(result)),
					)
					.map(({ id, evidence }) => `${id}: ${evidence[0]}`),
				[],
			);
		});

		await t.test("with a key, a reply is seen", async (t) => {
			const stdout = await host.sh(
				`printf %s ${key} | llamagate doctor --json --only gate.key --key-stdin`,
			);
			const { results } = JSON.parse(stdout);
			t.equal(results[0].state, "ok", stdout);
			t.notMatch(stdout, key);
		});

		await t.test("nor after a reboot", async (t) => {
			await host.reboot();
			await replayTailscaledRules(host);
			await becomes(
				t,
				async () => alarms(await examine(host, [])).join("\n"),
				"",
				"no alarm",
			);
		});
	},
);
