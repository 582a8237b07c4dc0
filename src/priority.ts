/**
 * The classes of requests, the highest first: of those that wait for the
 * model, one of a higher class goes before one of a lower.
 */
export const priorities = ["interactive", "normal", "batch"] as const;

export type Priority = (typeof priorities)[number];

/** The class of a key whose entry names none. */
export const defaultPriority: Priority = "normal";
