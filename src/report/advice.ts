/** A piece of what is to be done: words for a person, or a command to be typed as it is. */
export interface Advice {
	readonly kind: "prose" | "command";
	readonly text: string;
}

/** What a command of ours begins with. */
const programs =
	"sudo|llamagate|tailscale|systemctl|systemd-analyze|journalctl|docker|curl|ssh-copy-id|ss|df|printf|headscale";
/** At the beginning, or behind words that lead to one. */
const beginning = new RegExp(
	`(?:^|(?<=[:;,] )|(?<=\\bthen ))(?=(?:${programs}) \\S)`,
	"g",
);
/** Behind a command words go on after a comma, a semicolon or a full stop; or in brackets. */
const end = /[,;](?= )|\.(?= [A-Z])| (?=\([a-z])/;

/** Takes words and commands apart, in their order. A line of its own is one or the other. */
export function readAdvice(text: string): Advice[] {
	return text.split("\n").flatMap(readLine);
}

function readLine(line: string): Advice[] {
	const advice: Advice[] = [];
	const add = (kind: Advice["kind"], text: string) => {
		const trimmed = text.replace(/^[,;.]?\s+/, "").trimEnd();
		if (trimmed !== "") advice.push({ kind, text: trimmed });
	};
	// What is indented goes on with the command above it.
	if (/^\s+\S/.test(line)) return [{ kind: "command", text: line.trimEnd() }];
	let rest = line;
	for (;;) {
		// In brackets it is a word of the sentence.
		const at = [...rest.matchAll(beginning)].find(
			({ index }) => !/\([^)]*$/.test(rest.slice(0, index)),
		)?.index;
		if (at === undefined) {
			add("prose", rest);
			return advice;
		}
		add("prose", rest.slice(0, at));
		rest = rest.slice(at);
		const length = rest.search(end);
		add("command", length < 0 ? rest : rest.slice(0, length));
		if (length < 0) return advice;
		rest = rest.slice(length).replace(/^[,;.]\s*/, "");
	}
}
