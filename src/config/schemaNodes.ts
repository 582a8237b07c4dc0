import { durationPattern } from "../duration.ts";

// The kinds of settings that the schema is made of.

/** A time, such as "30s". */
export const duration = (fallback: string, description: string) =>
	({
		type: "string",
		pattern: durationPattern,
		"x-expected": 'a duration such as "30s", "15m" or "1h", at most "24d"',
		default: fallback,
		description,
	}) as const;

/** A whole number of at least 1. */
export const count = (fallback: number, description: string) =>
	({
		type: "integer",
		minimum: 1,
		maximum: 1_000_000_000,
		"x-expected": "a whole number of at least 1",
		default: fallback,
		description,
	}) as const;

/** A whole number within bounds. */
export const wholeNumber = (
	fallback: number,
	minimum: number,
	maximum: number,
	description: string,
) =>
	({
		type: "integer",
		minimum,
		maximum,
		"x-expected": `a whole number from ${minimum} to ${maximum}`,
		default: fallback,
		description,
	}) as const;

/** A section of settings, of which any may be left out. */
export const section = <const P extends Record<string, object>>(
	properties: P,
	description: string,
) =>
	({
		type: "object",
		additionalProperties: false,
		properties,
		description,
	}) as const;

/** A section that may be left out whole, and then means nothing. */
export const optionalSection = <const P extends Record<string, object>>(
	properties: P,
	description: string,
) => ({ ...section(properties, description), examples: [{}] }) as const;
