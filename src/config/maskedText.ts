import { visit } from "jsonc-parser";

/**
 * A configuration's text as it may be shown: of every address its scheme and its
 * host alone, in comments too, since what is behind them (and a login before the
 * host) may be a secret. Every line stays on its line. It need not be valid.
 */
export function maskedText(text: string): string {
	let masked = "";
	let end = 0;
	visit(text, {
		onLiteralValue(value, offset, length, _line, _character, pathOf) {
			const [section, , member] = pathOf();
			if (section !== "alarms" || !String(member).startsWith("url")) return;
			// As JSON has it written it may not look like an address.
			masked += text.slice(end, offset) + JSON.stringify(String(value));
			end = offset + length;
		},
	});
	return (masked + text.slice(end)).replace(
		/([a-z][a-z\d+.-]*:\/\/)([^\s"]*)/gi,
		(_, scheme: string, rest: string) => scheme + hostOf(rest),
	);
}

function hostOf(rest: string): string {
	// A password may have a / in it.
	const [host = "", ...more] = rest
		.slice(rest.lastIndexOf("@") + 1)
		.split(/[/?#]/);
	return more.join("") === "" ? host : `${host}/…`;
}
