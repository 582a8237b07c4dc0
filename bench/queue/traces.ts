import type { Priority } from "../../src/priority.ts";
import type { GpuSettings } from "./gpu.ts";

/** Somebody who asks, waits for the reply, thinks, and asks again. */
export interface TraceUser {
	readonly name: string;
	/** Whose figures count together. */
	readonly group: string;
	readonly share?: number;
	readonly priority?: Priority;
	/** One of them for each request. */
	readonly models: readonly string[];
	/** Requests that are open at once. */
	readonly open: number;
	/** The mean of how long the GPU takes for one. */
	readonly serviceMs: number;
	/** The mean of how long this user thinks; 0 for one who always waits. */
	readonly thinkMs: number;
	/** Asks by day, five days a week, and hardly else. */
	readonly isAtWork?: boolean;
}

export interface Trace {
	readonly title: string;
	readonly gpu: GpuSettings;
	readonly seconds: number;
	readonly users: readonly TraceUser[];
}

const hour = 3600;

/** What the simulator is fed, by name. Lengths and pauses vary around what is given here, the same for one seed. */
export const traces = {
	batch: {
		title: "A person beside a batch of twelve",
		gpu: { room: 1, parallel: 1, loadMs: 1_000 },
		seconds: hour,
		users: [
			{
				...{ name: "batch", group: "batch", models: ["a"], open: 12 },
				...{ serviceMs: 350, thinkMs: 0 },
			},
			{
				...{ name: "person", group: "person", models: ["a"], open: 1 },
				...{ serviceMs: 100, thinkMs: 500 },
			},
		],
	},
	models: {
		title: "Two users of two models, room for one",
		gpu: { room: 1, parallel: 1, loadMs: 1_000 },
		seconds: hour,
		users: ["a", "b"].map((model) => ({
			...{ name: `user of ${model}`, group: `user of ${model}` },
			...{ models: [model], open: 4, serviceMs: 350, thinkMs: 0 },
		})),
	},
	chats: {
		title: "Two people who chat with two models, room for one",
		gpu: { room: 1, parallel: 1, loadMs: 4_000 },
		seconds: hour,
		users: ["a", "b"].map((model) => ({
			...{ name: `user of ${model}`, group: `user of ${model}` },
			...{ models: [model], open: 1, serviceMs: 1_000, thinkMs: 50 },
		})),
	},
	shares: {
		title: "Shares of 1, 2 and 4, requests of 8, 1 and 2 s",
		gpu: { room: 1, parallel: 2, loadMs: 1_000 },
		seconds: 8 * hour,
		users: [
			[1, 8_000],
			[2, 1_000],
			[4, 2_000],
		].map(([share = 1, serviceMs = 0]) => ({
			...{ name: `share ${share}`, group: `share ${share}`, share },
			...{ models: ["a"], open: 6, serviceMs, thinkMs: 0 },
		})),
	},
	overload: {
		title:
			"More than there is room for: 90 people with three models, room for one",
		gpu: { room: 1, parallel: 1, loadMs: 8_000 },
		seconds: 24 * hour,
		users: Array.from({ length: 90 }, (_, index) => ({
			...{ name: `person ${index}`, group: "people" },
			models: ["a", "b", "c"].slice(index % 3, (index % 3) + 1),
			...{ open: 1, serviceMs: 10_000, thinkMs: 10_000 },
		})),
	},
	week: {
		title: "A week: ten thousand people at work, five batch users, four models",
		gpu: { room: 2, parallel: 4, loadMs: 8_000 },
		seconds: 7 * 24 * hour,
		users: [
			...Array.from(
				{ length: 10_000 },
				(_, index): TraceUser => ({
					...{ name: `person ${index}`, group: "people" },
					// Most use the same model, few another.
					models: [index % 10 === 0 ? "c" : index % 3 === 0 ? "b" : "a"],
					...{ open: 1, serviceMs: 4_000, thinkMs: 4 * hour * 1000 },
					isAtWork: true,
				}),
			),
			...Array.from(
				{ length: 5 },
				(_, index): TraceUser => ({
					...{ name: `batch ${index}`, group: "batch", priority: "batch" },
					models: [index === 0 ? "d" : "a"],
					...{ open: 4, serviceMs: 10_000, thinkMs: 0 },
				}),
			),
		],
	},
} as const satisfies Record<string, Trace>;

export type TraceName = keyof typeof traces;
