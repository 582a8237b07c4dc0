import path from "node:path";
import t from "tap";
import { openStore } from "../../src/ledger/openStore.ts";
import { dayMs } from "../../src/ledger/store.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { runStoreContract } from "./contract.ts";

t.test("a file keeps the contract of stores", async (t) => {
	await runStoreContract(
		t,
		async (t, retentionMs = 90 * dayMs) => {
			const file = path.join(await temporaryFolder(t), "ledger.sqlite");
			const open = () => {
				const { store } = openStore(file, retentionMs, "here");
				t.teardown(() => store.close());
				return store;
			};
			return { store: open(), again: async () => open() };
		},
		200,
	);
});
