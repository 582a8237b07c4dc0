import t from "tap";
import { planUnitFiles, type UnitFile } from "../../src/host/gate/unitFiles.ts";

const contents = new Map([
	["llamagate.service", "gate"],
	["llamagate.socket", "socket"],
	["llamagate-doctor.timer", "timer"],
]);
const required = ["llamagate.service", "llamagate.socket"];

/** A plan for these units as they are, but for what is said of some. */
function plan(
	usual: Omit<UnitFile, "name">,
	odd: Readonly<Record<string, Partial<UnitFile>>> = {},
) {
	const files = [...contents.keys()].map((name) => ({
		...{ name, ...usual },
		...odd[name],
	}));
	return planUnitFiles(files, contents, required);
}

const packaged = { isMasked: false, own: undefined, isPackaged: true };
const foreign = { isMasked: false, own: undefined, isPackaged: false };

t.test("the package's units are left to it, one by one", async (t) => {
	t.strictSame(plan(packaged), { write: [], notes: [], obstacle: undefined });
	const masked = plan(packaged, {
		"llamagate-doctor.timer": { isMasked: true },
	});
	t.match(masked, {
		write: [],
		notes: [
			/^Masked.*: llamagate-doctor\.timer\. .*systemctl unmask llamagate-doctor\.timer$/,
		],
		obstacle: undefined,
	});
	const edited = plan(packaged, { "llamagate.service": { own: "mine" } });
	t.strictSame(edited.write, []);
	t.match(edited.notes, [
		/left as it is: \/etc\/systemd\/system\/llamagate\.service\. .*sudo rm/,
	]);
	const older = plan(packaged, {
		"llamagate-doctor.timer": { isPackaged: false },
	});
	t.strictSame(older.write, ["llamagate-doctor.timer"], "what it has not");
});

t.test(
	"without the package all are setup's, but for what is masked",
	async (t) => {
		t.strictSame(plan(foreign).write, [...contents.keys()]);
		t.match(plan(foreign, { "llamagate.socket": { own: "socket" } }), {
			write: ["llamagate.service", "llamagate-doctor.timer"],
			notes: [],
		});
		t.strictSame(
			plan(foreign, { "llamagate-doctor.timer": { isMasked: true } }).write,
			required,
		);
	},
);

t.test("without a unit that it needs the gate cannot run", async (t) => {
	for (const usual of [packaged, foreign])
		t.match(
			plan(usual, { "llamagate.socket": { isMasked: true } }).obstacle,
			/^llamagate\.socket is masked.*sudo systemctl unmask llamagate\.socket$/,
		);
});
