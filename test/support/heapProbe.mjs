// Preloaded into a gate: on SIGUSR2 it says how full V8's old heap is, and how often
// the whole of it has been collected.
import { writeSync } from "node:fs";
import { constants, PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics } from "node:v8";

let collections = 0;
new PerformanceObserver((list) => {
	for (const { detail } of list.getEntries())
		if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections += 1;
}).observe({ entryTypes: ["gc"] });

process.on("SIGUSR2", () => {
	// The observer is told of what happened before in a turn of its own.
	setImmediate(() => {
		const oldBytes = getHeapSpaceStatistics().find(
			({ space_name }) => space_name === "old_space",
		).space_used_size;
		writeSync(1, `${JSON.stringify({ msg: "heap", oldBytes, collections })}\n`);
	});
});
