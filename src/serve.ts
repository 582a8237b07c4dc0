import "./beforeServe.ts";
import { runCommand } from "./commands/command.ts";
import { serve } from "./commands/serve.ts";
import { exitAfter } from "./exit.ts";

/**
 * What main.ts does for `llamagate serve`, and nothing else. In the published
 * program it is one file with all that the daemon needs, which starts sooner.
 */
await exitAfter(() => runCommand("serve", serve, process.argv.slice(3)));
