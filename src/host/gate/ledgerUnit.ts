import { loadConfig } from "../../config/load.ts";
import { BadFileError } from "../../errors.ts";

export const ledgerUnit = "llamagate-ledger.service";

/** Whether a configuration wants a ledger; one that cannot be read does not. */
export async function wantsLedger(configFile: string): Promise<boolean> {
	try {
		return (await loadConfig(configFile)).ledger !== undefined;
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return false;
	}
}
