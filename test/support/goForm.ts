/** A field of a form, with its value in Latin-1. */
export interface GoField {
	readonly name: string;
	readonly value: string;
}

/**
 * What Go's mime/multipart makes of a form, in Latin-1: a delimiter stands at a
 * line's start and may have spaces behind it, anything else that looks like one
 * is data, and heads are read as textproto reads them. `undefined` for what it
 * refuses, and for a delimiter right behind a head: to Go that part is empty, to
 * others, such as python-multipart, the delimiter is the part's data.
 */
export function readFormLikeGo(
	text: string,
	boundary: string,
): GoField[] | undefined {
	const fields: GoField[] = [];
	const dashes = `--${boundary}`.replace(/\W/g, "\\$&");
	const first = new RegExp(`^${dashes}[ \t]*\r\n`).exec(text);
	if (first === null) return undefined;
	let at = first[0].length;
	for (;;) {
		const head = /^(?:[^\n]+\n)*?\r?\n/.exec(text.slice(at));
		if (head === null) return undefined;
		at += head[0].length;
		const delimiter = new RegExp(`\r\n${dashes}(--)?[ \t]*(\r\n|$)`, "g");
		if (text.startsWith(`--${boundary}`, at)) return undefined;
		delimiter.lastIndex = at;
		const end = delimiter.exec(text);
		if (end === null || (end[1] === undefined && end[2] === ""))
			return undefined;
		const name = fieldName(head[0]);
		if (name === undefined) return undefined;
		const value = text.slice(at, end.index);
		fields.push({ name, value: decode(value, head[0]) });
		if (end[1] !== undefined) return fields;
		at = delimiter.lastIndex;
	}
}

/** The first Content-Disposition of a part counts. */
function fieldName(head: string): string | undefined {
	const [, parameters = ""] =
		/^content-disposition:[ \t]*form-data((?:;.*)?)\r?$/im.exec(head) ?? [];
	const [, quoted, plain] =
		/;[ \t]*name=(?:"([^"]*)"|([^\s"(),/:;<=>?@[\\\]]+))/i.exec(parameters) ??
		[];
	return quoted ?? plain;
}

/** Go unpacks one coding, and says nothing of the others. */
function decode(value: string, head: string): string {
	if (!/^content-transfer-encoding:[ \t]*quoted-printable/im.test(head))
		return value;
	return value
		.replace(/=\r?\n/g, "")
		.replace(/=([0-9a-f]{2})/gi, (_, code: string) =>
			String.fromCharCode(Number.parseInt(code, 16)),
		);
}
