import type { AlarmForm, AlarmSubject } from "../../config/alarms.ts";
import type { About } from "./alarm.ts";

/** What a person reads. */
export interface Message extends About {
	readonly subject: AlarmSubject | "test";
	readonly title: string;
	readonly text: string;
}

/** An address to post to, and what. */
export interface Post {
	readonly url: URL;
	readonly body: object;
}

/** Of ntfy, 1 to 5; 3 is its usual. */
const priorities: Readonly<Record<Message["subject"], number>> = {
	canary: 5,
	upstream_down: 4,
	lockout: 4,
	budget: 3,
	key_expiring: 3,
	test: 3,
};

/** Discord takes 2000 characters. */
const maxLength = 1_900;

/**
 * Puts a message into the receiver's JSON.
 *
 * ntfy takes JSON at its root, with the topic in it (docs.ntfy.sh/publish, "Publish
 * as JSON"); Slack a `text` in which `&`, `<` and `>` mean something; Discord a
 * `content`, where nobody is to be pinged by what a name looks like.
 */
export function postOf(form: AlarmForm, url: URL, message: Message): Post {
	const { subject, title, text, isOver } = message;
	const cut = text.slice(0, maxLength - title.length);
	if (form === "slack")
		return {
			url,
			body: { text: `*${escapeSlack(title)}*\n${escapeSlack(cut)}` },
		};
	if (form === "discord")
		return {
			url,
			body: {
				content: `**${escapeMarkdown(title)}**\n${escapeMarkdown(cut)}`.slice(
					0,
					2_000,
				),
				allowed_mentions: { parse: [] },
			},
		};
	const root = new URL(url);
	const end = root.pathname.lastIndexOf("/");
	const topic = decodeURIComponent(root.pathname.slice(end + 1));
	root.pathname = root.pathname.slice(0, end + 1);
	return {
		url: root,
		body: {
			...{ topic, title, message: cut },
			priority: isOver ? priorities.test : priorities[subject],
		},
	};
}

function escapeSlack(text: string): string {
	return text
		.replaceAll("&", "&amp;")
		.replaceAll("<", "&lt;")
		.replaceAll(">", "&gt;");
}

function escapeMarkdown(text: string): string {
	return text.replace(/[\\*_~`|>#[\]]/g, "\\$&");
}
