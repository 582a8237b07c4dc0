import type { ServerResponse } from "node:http";
import { History, type Point } from "./history.ts";
import { renderSections, type SectionName, type Sections } from "./sections.ts";
import type { Snapshot, Watch } from "./snapshot.ts";

/** How many bounds there are to what viewers may cost. */
export interface ViewerLimits {
	/** Pages that are open at once. */
	readonly most: number;
	/** What one may leave unread before it is dropped. */
	readonly unreadBytes: number;
	/** Between looks. */
	readonly intervalMs: number;
}

export const viewerLimits: ViewerLimits = {
	most: 32,
	unreadBytes: 256 * 1024,
	intervalMs: 1_000,
};

/** A viewer that hears nothing for longer might take the connection for dead. */
const quietMs = 15_000;

/**
 * The open pages. While there are any, the gate is looked at once a second for
 * all of them; each is sent what has changed, and anyone who does not take it is
 * dropped, and comes again by itself.
 */
export class Viewers {
	readonly #watch: Watch;
	readonly #limits: ViewerLimits;
	/** Whether each has been sent all of it once. */
	readonly #all = new Map<ServerResponse, { hasWhole: boolean }>();
	readonly #history = new History();
	#sections: Sections | undefined;
	#timer: NodeJS.Timeout | undefined;
	#isLooking = false;
	#sentAtMs = Number.NEGATIVE_INFINITY;

	constructor(watch: Watch, limits: ViewerLimits = viewerLimits) {
		this.#watch = watch;
		this.#limits = limits;
	}

	get count(): number {
		return this.#all.size;
	}

	/** The sections as they are now, for a page that is opened. */
	async sections(): Promise<{ snapshot: Snapshot; sections: Sections }> {
		const snapshot = await this.#watch.look();
		return { snapshot, sections: renderSections(snapshot) };
	}

	/**
	 * Sends a viewer all of it, and what is new from then on, as server-sent events.
	 *
	 * @param response whose head is still to be written
	 * @returns whether there was room for it; if not, nothing was sent
	 */
	add(response: ServerResponse, headers: Record<string, string>): boolean {
		if (this.#all.size >= this.#limits.most) return false;
		this.#all.set(response, { hasWhole: false });
		response.once("close", () => this.#leave(response));
		response.on("error", () => {});
		response.writeHead(200, {
			...headers,
			"content-type": "text/event-stream; charset=utf-8",
		});
		response.write("retry: 3000\n\n");
		void this.#look();
		return true;
	}

	/** Lets all of them go. */
	close(): void {
		for (const response of this.#all.keys()) response.destroy();
	}

	#leave(response: ServerResponse): void {
		this.#all.delete(response);
		if (this.#all.size === 0) clearTimeout(this.#timer);
	}

	async #look(): Promise<void> {
		if (this.#isLooking) return;
		this.#isLooking = true;
		clearTimeout(this.#timer);
		try {
			this.#show(await this.#watch.look());
		} catch {
			// What was asked answers as none of this version's does. Browsers say that
			// the page stops, and come again.
			this.close();
		} finally {
			this.#isLooking = false;
		}
		if (this.#all.size > 0)
			this.#timer = setTimeout(
				() => void this.#look(),
				this.#limits.intervalMs,
			);
	}

	#show(snapshot: Snapshot): void {
		const added = this.#history.add(snapshot);
		const before = this.#sections;
		this.#sections = renderSections(snapshot);
		this.#tell(this.#newsSince(before, this.#sections, added));
	}

	#tell(news: string | undefined): void {
		let whole: string | undefined;
		for (const [response, viewer] of this.#all)
			if (viewer.hasWhole) {
				if (news !== undefined) this.#send(response, news);
			} else {
				viewer.hasWhole = true;
				whole ??= this.#whole(this.#sections);
				this.#send(response, whole);
			}
	}

	/** `undefined` where there is none, and nobody needs a sign of life yet. */
	#newsSince(
		before: Sections | undefined,
		sections: Sections,
		{ points, isAnew }: ReturnType<History["add"]>,
	): string | undefined {
		const news = Object.fromEntries(
			Object.entries(sections).filter(
				([name, markup]) => before?.[name as SectionName] !== markup,
			),
		);
		const isNews = points.length > 0 || Object.keys(news).length > 0;
		const nowMs = performance.now();
		if (!isNews && nowMs - this.#sentAtMs < quietMs) return undefined;
		this.#sentAtMs = nowMs;
		return isNews
			? eventOf({ sections: news, points, isWhole: isAnew })
			: ": nothing new\n\n";
	}

	#whole(sections: Sections | undefined): string {
		return eventOf({
			sections: sections ?? {},
			points: this.#history.points,
			isWhole: true,
		});
	}

	#send(response: ServerResponse, text: string): void {
		if (response.writableLength > this.#limits.unreadBytes) {
			response.destroy();
			return;
		}
		response.write(text);
	}
}

/** JSON has no line end in it, which would end the event. */
function eventOf(look: {
	readonly sections: Partial<Sections>;
	readonly points: readonly Point[];
	readonly isWhole: boolean;
}): string {
	return `event: look\ndata: ${JSON.stringify(look)}\n\n`;
}
