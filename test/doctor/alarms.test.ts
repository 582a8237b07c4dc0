import t from "tap";
import { alarmsDropIn, judgeAlarms } from "../../src/host/gate/alarms.ts";

const ntfy = { name: "ntfy at ntfy.example", on: new Set(["canary"] as const) };
const unit = { exists: true, isActive: true, dropIns: [alarmsDropIn] };

t.test("alarms that can leave are well, and none are none", async (t) => {
	t.match(judgeAlarms([], { ...unit, dropIns: [] }, ""), { state: "absent" });
	t.match(judgeAlarms([], undefined, ""), { state: "absent" });
	t.match(judgeAlarms([ntfy], unit, true), {
		state: "ok",
		evidence: ["ntfy at ntfy.example is told of canary"],
	});
	t.match(
		judgeAlarms([ntfy], undefined, true),
		{ state: "ok" },
		"without systemd",
	);
});

t.test(
	"a way out that is missing, not needed, or not used is told of",
	async (t) => {
		t.match(judgeAlarms([ntfy], { ...unit, dropIns: [] }, true), {
			state: "finding",
			evidence: [/has no way out to send them/, String],
		});
		t.match(judgeAlarms([ntfy], { ...unit, isActive: false }, "no ledger"), {
			state: "finding",
			evidence: [/does not run/, String],
		});
		t.match(judgeAlarms([], unit, ""), {
			state: "finding",
			evidence: [/has a way out all the same/],
		});
	},
);

t.test("a ledger that was started with other alarms is told of", async (t) => {
	for (const place of [unit, undefined])
		t.match(judgeAlarms([ntfy], place, false), {
			state: "finding",
			evidence: [/the running ledger has read/, String],
			fix: "sudo systemctl restart llamagate-ledger",
		});
	t.match(judgeAlarms([ntfy], unit, "it is away"), {
		state: "unknown",
		evidence: [/not known: it is away$/],
	});
});
