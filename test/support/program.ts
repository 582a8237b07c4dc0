import path from "node:path";

const { LLAMAGATE_PROGRAM: built } = process.env;

/**
 * The file that Node runs as llamagate: of the program as it is published, which
 * `npm test` has built of this tree (test/program.ts), or of the sources where
 * tap is started by other means.
 */
export const program: string =
	built === undefined ? "src/main.ts" : path.join(built, "bin/llamagate.js");
