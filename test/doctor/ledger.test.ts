import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { judgeLedger } from "../../src/host/gate/ledger.ts";
import { databaseObstacle, dropInOf } from "../../src/host/gate/ledgerUnit.ts";

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
		t.match(judgeLedger(false, ['the key "lab"'], "no gate"), {
			state: "finding",
			evidence: [/the key "lab" has a budget/],
		});
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
		t.match(judgeLedger(true, [], { ledger: counts }, "no way there"), {
			state: "finding",
			evidence: ["no way there"],
			fix: /setup --only gate/,
		});
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
