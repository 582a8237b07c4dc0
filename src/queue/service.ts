import type { Priority } from "../priority.ts";

/** Service that other gates render to the same users. */
export interface ServiceElsewhere {
	/** What a user is called wherever it is served. */
	nameOf(user: string): string;
	/** This gate's queue has rendered so much, in milliseconds divided by the user's share. Returns at once. */
	served(priority: Priority, name: string, ms: number): void;
	/** Takes what other gates have rendered; set by the queue that is in force. */
	hear: ((priority: Priority, name: string, ms: number) => void) | undefined;
}
