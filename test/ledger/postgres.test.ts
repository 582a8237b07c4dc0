import t from "tap";
import { PostgresStore } from "../../src/ledger/postgres/store.ts";
import { dayMs } from "../../src/ledger/store.ts";
import { postgres, startPostgres } from "../support/postgres.ts";
import { runStoreContract } from "./contract.ts";

t.test("PostgreSQL keeps the contract of stores", postgres(), async (t) => {
	const server = await startPostgres(t);
	await runStoreContract(
		t,
		async (t, retentionMs = 90 * dayMs) => {
			const { database } = await server.createDatabase();
			const open = () => {
				const store = new PostgresStore({
					...{ database, passwordFile: server.passwordFile },
					...{ retentionMs, gate: "here" },
				});
				t.teardown(() => store.close());
				return store;
			};
			return { store: open(), again: async () => open() };
		},
		50,
	);
});
