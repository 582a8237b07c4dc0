import { readFileSync } from "node:fs";
import path from "node:path";
import { packageFolder } from "./packageFolder.ts";

const { version: stated } = JSON.parse(
	readFileSync(path.join(packageFolder, "package.json"), "utf8"),
) as {
	version: string;
};

/** The program's version, as package.json states it. */
export const version: string = stated;
