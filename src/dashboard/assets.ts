import { readFileSync } from "node:fs";
import path from "node:path";
import { packageFolder } from "../packageFolder.ts";

/*
 * In the published program scripts/build/bundle.ts puts another file in this
 * one's place, with the texts in it.
 */
const read = (...parts: string[]) =>
	readFileSync(path.join(packageFolder, ...parts), "utf8");

/** The page's own script and style. */
export const pageScript: string = read("src/dashboard/browser/page.js");
export const pageStyle: string = read("src/dashboard/browser/page.css");
/** What draws the curves: uPlot, as it is published. */
export const curveScript: string = read(
	"node_modules/uplot/dist/uPlot.iife.min.js",
);
export const curveStyle: string = read("node_modules/uplot/dist/uPlot.min.css");
