import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { judgeState } from "../../src/host/gate/state.ts";

const settings = (state: object) =>
	parseConfig(JSON.stringify({ state }), "/etc/llamagate/config.json").state;
const here = settings({ url: "unix:/run/valkey.sock" });
const status = {
	valkey: "unix:/run/valkey.sock",
	isConnected: true,
	losses: 0,
	unanswered: 0,
	gates: 2,
	lockedOut: 0,
};

t.test("gates that are to share nothing miss nothing", async (t) => {
	t.match(judgeState(undefined, "no gate"), { state: "absent" });
});

t.test("gates that share their limits are well", async (t) => {
	t.match(judgeState(here, { state: status }), {
		state: "ok",
		evidence: [/^2 gate\(s\) share their limits through unix:/],
	});
});

t.test(
	"a Valkey that is away, not used, another, or reached in the open is told of",
	async (t) => {
		t.match(judgeState(here, "only root may ask"), { state: "unknown" });
		t.match(judgeState(here, {}), {
			state: "finding",
			fix: /restart llamagate/,
		});
		t.match(
			judgeState(here, {
				state: { ...status, valkey: "valkey://127.0.0.1:1" },
			}),
			{ state: "finding", fix: /restart llamagate/ },
		);
		t.match(
			judgeState(here, {
				state: { ...status, isConnected: false, why: "ECONNREFUSED" },
			}),
			{
				state: "finding",
				evidence: [/is away: ECONNREFUSED/, /as one of 2/],
			},
		);
		const far = settings({ url: "valkey://100.64.0.9", passwordFile: "p" });
		t.match(
			judgeState(far, {
				state: {
					...{ ...status, isConnected: false, why: "ENOENT" },
					valkey: "valkey://100.64.0.9:6379",
				},
			}),
			{ state: "finding", fix: /sudo llamagate setup --only bridges/ },
		);
		const at = (url: string) =>
			judgeState(settings({ url, passwordFile: "p" }), {
				state: { ...status, valkey: url },
			});
		t.match(at("valkey://192.168.1.5:6379"), {
			state: "finding",
			evidence: [/neither on this host nor on the tailnet/, String],
		});
		for (const url of [
			"valkey://100.64.0.9:6379",
			"valkey://127.0.0.1:6379",
			"valkeys://db.example:6379",
		])
			t.match(at(url), { state: "ok" }, url);
	},
);
