/** Adds a family of samples to the metrics; its name without `llamagate_`, the labels of each in braces. */
export type Family = (
	name: string,
	type: "counter" | "gauge",
	help: string,
	samples: Iterable<[string, number]>,
) => void;
