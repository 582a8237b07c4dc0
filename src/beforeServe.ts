import { setFlagsFromString } from "node:v8";
import { startNotifier } from "./net/systemd.ts";
import { giveUp } from "./permission.ts";

/**
 * To be imported before anything that is not llamagate's own, so that no
 * dependency can start a program, not even while it is loaded.
 */
if (process.argv[2] === "serve") {
	startNotifier();
	giveUp("child");
	// V8 puts what it has once seen survive into the old heap at birth. With a burst of
	// requests that is every request, and whatever hangs on it follows (docs/adr/0019).
	setFlagsFromString("--no-allocation-site-pretenuring");
}
