import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { judgeLedger } from "../../src/host/gate/ledger.ts";
import {
	databaseObstacle,
	dropInOf,
	endLedger,
} from "../../src/host/gate/ledgerUnit.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { eventually, runCli, startGate, testEntries } from "../support/gate.ts";
import { ledgerPlace, spawnLedger } from "../support/ledger.ts";

const [user] = testEntries as [KeyEntry];

const lab = [{ account: "lab", group: undefined, per: "week" }] as const;

const counts = {
	isConnected: true,
	waiting: 3,
	written: 120,
	aggregated: 0,
	lost: 0,
};

t.test(
	"what is not wanted is not missed, unless a budget needs it",
	async (t) => {
		t.match(judgeLedger(false, [], "no gate"), { state: "absent" });
		t.match(judgeLedger(false, [], "no gate", { trouble: "it is enabled" }), {
			evidence: ["it is enabled"],
			fix: "sudo llamagate setup --only gate",
		});
		for (const [withoutLedger, what] of [
			["batch", "are served in the class `batch`"],
			["refuse", "are answered 503"],
		] as const)
			t.match(judgeLedger(false, lab, "no gate", { withoutLedger }), {
				state: "finding",
				evidence: [
					`the key "lab" has a budget, and no ledger keeps what it used: after each restart it is whole again, and until its next week begins its requests ${what}`,
				],
			});
	},
);

t.test(
	"it says what becomes of a key whose use a ledger that is away has not told",
	async (t) => {
		const away = { ...counts, isConnected: false };
		const unknown = (what: string) =>
			`the key "lab" has a budget, and what it has used is not known: until a ledger tells, its requests ${what}`;
		const batch = unknown("are served in the class `batch`");
		const refused = unknown("are answered 503");
		const judge = (gate: object, withoutLedger: "batch" | "refuse" = "batch") =>
			judgeLedger(true, lab, gate, { withoutLedger });
		const budget = {
			key: "lab",
			per: "week" as const,
			used: { gpuMs: 0, tokens: 0, requests: 0 },
			limits: { requests: 5 },
			resetsAt: "2030-01-01T00:00:00Z",
		};
		const budgets = [{ ...budget, isKnown: false }];
		for (const gate of [{ ledger: away }, { ledger: away, budgets }]) {
			t.match(judge(gate), {
				state: "finding",
				evidence: ["no ledger takes records", String, batch],
			});
			t.match(judge(gate, "refuse"), {
				evidence: ["no ledger takes records", String, refused],
			});
		}
		t.match(judge({ budgets }), {
			evidence: ["the running gate was started without the ledger", batch],
		});
		t.match(judgeLedger(true, lab, "no gate", { trouble: "no way there" }), {
			evidence: ["no way there", batch],
		});
		const told = [{ ...budget, isKnown: true }];
		const { evidence } = judge({ ledger: away, budgets: told }) as {
			evidence: readonly string[];
		};
		t.equal(evidence.length, 2, "one that was told is no matter");
	},
);

t.test("a ledger that takes what the gate sends is well", async (t) => {
	t.match(judgeLedger(true, [], { ledger: counts }), {
		state: "ok",
		evidence: [/^120 requests .*, 3 wait$/],
	});
});

t.test(
	"one that is away, not used, or has lost something is told of",
	async (t) => {
		t.match(judgeLedger(true, [], "only root may ask"), { state: "unknown" });
		t.match(judgeLedger(true, [], {}), {
			state: "finding",
			fix: /restart llamagate/,
		});
		t.match(
			judgeLedger(true, [], { ledger: { ...counts, isConnected: false } }),
			{ state: "finding", evidence: ["no ledger takes records", String] },
		);
		const why = "the database refuses the password";
		t.match(
			judgeLedger(true, [], { ledger: { ...counts, isConnected: false, why } }),
			{ evidence: [`no ledger takes records: ${why}`, String] },
		);
		t.match(
			judgeLedger(true, [], { ledger: counts }, { trouble: "no way there" }),
			{
				state: "finding",
				evidence: ["no way there"],
				fix: /setup --only gate/,
			},
		);
		t.match(judgeLedger(true, [], { ledger: { ...counts, lost: 7 } }), {
			state: "finding",
			evidence: [String, /7 requests is lost/],
		});
	},
);

t.test(
	"the unit's drop-in leads to the database and nowhere else",
	async (t) => {
		const dropIn = (ledger: object) =>
			dropInOf(
				parseConfig(JSON.stringify({ ledger }), "/etc/llamagate/config.json")
					.ledger,
			);
		t.equal(dropIn({}), "");
		t.equal(dropInOf(undefined), "");
		const tailnet = dropIn({
			url: "postgres://me@100.64.7.8/u",
			passwordFile: "ledger-password",
		});
		t.match(tailnet, /^PrivateNetwork=no$/m);
		t.match(tailnet, /^IPAddressAllow=100\.64\.7\.8$/m);
		t.match(
			tailnet,
			/^LoadCredential=ledger-password:\/etc\/llamagate\/ledger-password$/m,
		);
		const far = dropIn({
			url: "postgres://me@db.example/u?sslrootcert=/ca.pem",
		});
		t.match(far, /^IPAddressDeny=$/m);
		t.match(far, /resolv\.conf/);
		t.match(far, /^LoadCredential=ledger-ca:\/ca\.pem$/m);
		const near = dropIn({ url: "postgres://me@%2Frun%2Fpostgresql/u" });
		t.match(near, /^BindReadOnlyPaths=\/run\/postgresql$/m);
		t.notMatch(near, /PrivateNetwork|AF_INET/);
		t.match(
			await databaseObstacle(
				parseConfig(
					'{"ledger":{"url":"postgres://me@db.example/u","passwordFile":"/a b"}}',
					"c.json",
				).ledger,
			),
			/misread/,
		);
	},
);

t.test(
	"a unit that nothing wants is ended, and undo has it as it was",
	async (t) => {
		const unit = "llamagate-ledger.service";
		const state = {
			isActive: false,
			isEnabled: false,
			isFailed: false,
			isMasked: false,
		};
		const planned = (changed: Partial<typeof state>) =>
			endLedger({ ...state, ...changed }).map(({ command, undo = [] }) => [
				command.slice(1).join(" "),
				...undo.map((back) => back.slice(1).join(" ")),
			]);
		const restart = ["try-restart llamagate.service"];
		const end = `disable --now ${unit}`;
		t.strictSame(planned({}), []);
		t.strictSame(planned({ isActive: true, isEnabled: true }), [
			restart,
			[end, `enable ${unit}`, `start ${unit}`],
		]);
		t.strictSame(planned({ isActive: true }), [
			restart,
			[end, `start ${unit}`],
		]);
		t.strictSame(
			planned({ isEnabled: true, isFailed: true }),
			[restart, [end, `enable ${unit}`], [`reset-failed ${unit}`]],
			"systemd has given up on it",
		);
		t.strictSame(planned({ isActive: true, isMasked: true }), [], "a person's");
	},
);

t.test("it asks the gate that runs, and the configuration", async (t) => {
	const place = await ledgerPlace(t);
	const gate = await startGate(t, {
		config: {
			ledger: place.section,
			budgets: {
				withoutLedger: "refuse",
				groups: { family: { requests: 5, per: "day" } },
			},
		},
		keys: [{ ...user, group: "family" }],
	});
	const look = async () => {
		const { stdout } = await runCli([
			...["doctor", "--only", "gate.ledger", "--json"],
			...["--config", gate.configFile],
		]);
		return stdout;
	};
	const says =
		/the group \\"family\\" has a budget, .* its requests are answered 503/;
	t.match(await look(), says);
	await spawnLedger(t, place);
	await eventually(async () => !says.test(await look()));
});
