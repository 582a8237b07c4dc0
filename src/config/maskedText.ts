import { visit } from "jsonc-parser";

/**
 * A configuration's text as it may be shown: of every address its scheme and its
 * host alone, in comments too, since what is behind them (and a login before the
 * host) may be a secret. Where it is not clear what the host is, none is shown.
 * Every line stays on its line. It need not be valid.
 */
export function maskedText(text: string): string {
	let masked = "";
	let end = 0;
	visit(text, {
		onLiteralValue(value, offset, length, _line, _character, pathOf) {
			const [section, , member] = pathOf();
			if (section !== "alarms" || member === "form" || member === "on") return;
			// As JSON has it written it may not look like an address.
			masked += text.slice(end, offset) + JSON.stringify(placeOf(value));
			end = offset + length;
		},
	});
	return (masked + text.slice(end)).replace(
		/(https?:[/\\]+|[a-z][a-z\d+.-]*:\/\/)((?:\\[^\r\n]|[^"\\\r\n])*)/gi,
		(_, scheme: string, rest: string) => scheme + hostOf(rest),
	);
}

/** Of an alarm's address, as it is read when the alarm is sent. */
function placeOf(value: unknown): string {
	const url = URL.parse(String(value));
	if (url === null || !/^https?:$/.test(url.protocol)) return "…";
	return `${url.protocol}//${url.host}/…`;
}

/** Of an address that runs on to its quote or the end of its line: a comment may have it bare, with blanks. */
function hostOf(rest: string): string {
	const [authority = ""] = rest.split(/[/?#\\\s]/, 1);
	const behind = rest.slice(authority.length);
	// A password may have a / in it, and so may what is behind a host have an @.
	if (behind.includes("@")) return "…";
	const host = authority.slice(authority.lastIndexOf("@") + 1);
	return behind.length > 1 ? `${host}/…` : host;
}
