import { startNotifier } from "./net/systemd.ts";
import { giveUp } from "./permission.ts";

/**
 * To be imported before anything that is not llamagate's own, so that no
 * dependency can start a program, not even while it is loaded.
 */
if (process.argv[2] === "serve") {
	startNotifier();
	giveUp("child");
}
