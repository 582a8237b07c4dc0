/** Prints the folder of the program that npm test runs (test/run). */
import { builtProgram } from "./support/builtProgram.ts";

process.stdout.write(await builtProgram());
