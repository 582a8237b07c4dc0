/** Where things are in a booted host, relative to its root. */

/** The programs that stand in for what cannot be had in a test. */
export const standInFolder = "opt/stand-ins";
/** What those run with. */
export const standInNode = `${standInFolder}/node`;
/** What llamagate runs with. */
export const llamagateNode = "usr/lib/llamagate/bin/node";
/** What Node keeps of both, so that not every start compiles them. */
export const compiledCode = `${standInFolder}/compiled`;
