import { lstat } from "node:fs/promises";
import { bridgeSocket, bridgesVariable } from "../../config/bridges.ts";
import type { Settings } from "../../config/load.ts";
import { lookUpUnit } from "../../system/units.ts";
import { madeBridgeNames, wantedBridges } from "./inspect.ts";

const todo = "run: sudo llamagate setup --only bridges";

/** What is to be said of bridges to whoever has changed the configuration: a line each, nothing where the gate takes none. */
export async function bridgeHints(
	settings: Pick<Settings, "upstream" | "hosts" | "state">,
): Promise<readonly string[]> {
	const unit = await lookUpUnit("llamagate.service");
	if (!unit?.environment.has(bridgesVariable)) return [];
	const wanted = wantedBridges(settings);
	const missing: string[] = [];
	for (const bridge of wanted)
		if (
			!(await lstat(bridgeSocket(bridge)).then(
				() => true,
				() => false,
			))
		)
			missing.push(`No bridge leads to ${bridge.whose} yet; ${todo}`);
	const stale = (await madeBridgeNames())
		.filter((name) => !wanted.some((one) => one.name === name))
		.map((name) => `Nothing needs the bridge ${name} any more; ${todo}`);
	return [...missing, ...stale];
}
