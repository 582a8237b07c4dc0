/**
 * The Content-Type of a form and the heads of its parts, as far as readers agree
 * on them. What is taken is what HTTP libraries write; of the readers, Go's
 * mime/multipart (Ollama), Python's (vLLM, Speaches) and cpp-httplib's
 * (llama-server) were looked at.
 */

// One boundary, spelt plainly. Go prefers `boundary*` to `boundary` (mime.ParseMediaType)
// and takes `=`, `/` and `:` in quotes alone. `?` is left out, since Java's
// commons-fileupload decodes `=?utf-8?q?x?=`, and so are brackets, commas and spaces,
// which no library writes. Some readers decode by a charset, and it is UTF-8 without one.
const typePattern =
	/^multipart\/form-data(?:; ?charset=utf-8)?; ?boundary=(?:([\w'.+-]{1,70})|"([\w'.+=/:-]{1,70})")(?:; ?charset=utf-8)?$/i;

/** The boundary that a form's Content-Type gives, or `undefined` where readers could differ on it. */
export function readBoundary(
	contentType: string | undefined,
): string | undefined {
	const [, plain, quoted] = typePattern.exec(contentType ?? "") ?? [];
	return plain ?? quoted;
}

/** What a part's head says. */
export interface PartHead {
	readonly name: string;
	readonly hasFilename: boolean;
	/** Whether the data are read in UTF-8, or in what has the same letters there. */
	readonly isPlainText: boolean;
	/** As the head says, if it does. */
	readonly dataBytes: number | undefined;
}

// aiohttp strips slashes off the start of a name, and some split at `;` and `=` whether
// quoted or not, so that names have neither. A file called "model" is a field of that
// name to those that look for `name="` where the field's own has no quotes.
const dispositionPattern =
	/^form-data; name=(?:"([\w .[\]-]*)"|([\w.-]+))((?:; filename=(?!"model")(?:"[^"\\]*"|[\w!#$%&'*+.^`|~-]+))?(?:; filename\*=[Uu][Tt][Ff]-8''[\w!#$%&+.^`|~-]+)?)$/;

/** Nothing else may stand in a head; what its value must be, without its case. */
const known = new Map([
	["content-disposition", dispositionPattern],
	// Where it has a boundary, aiohttp and others look for parts within the part.
	["content-type", /^(?!.*boundary)[ -~]*$/i],
	// Old aiohttp goes by it, so that it has to be true. One with a zero in front is octal to some.
	["content-length", /^(?:0|[1-9]\d{0,14})$/],
	// Go decodes quoted-printable, others base64; these three change nothing.
	["content-transfer-encoding", /^(?:binary|8bit|7bit)$/i],
]);

/** aiohttp decodes a field by its charset; in these the letters of ASCII are the same. */
const plainTextPattern =
	/^[^;]*(?:; ?charset=("?)(?:utf-8|us-ascii|iso-8859-1)\1)?$/i;

/** aiohttp decodes all fields by what stands in this one (RFC 7578, 4.6). */
const charsetField = "_charset_";

/** Reads a part's head, in Latin-1 and without its last line's end; `undefined` if it could be read in two ways. */
export function readPartHead(head: string): PartHead | undefined {
	const fields = new Map<string, string>();
	for (const line of head.split("\r\n")) {
		// A line may have no other control characters than its end.
		const [, name = "", value = ""] =
			/^([a-z-]+): ([ -~\x80-\xff]*)$/i.exec(line) ?? [];
		const key = name.toLowerCase();
		if (known.get(key)?.test(value) !== true || fields.has(key))
			return undefined;
		fields.set(key, value);
	}
	const disposition = dispositionPattern.exec(
		fields.get("content-disposition") ?? "",
	);
	if (disposition === null) return undefined;
	const [, quoted, plain = "", files = ""] = disposition;
	const name = quoted ?? plain;
	if (name.toLowerCase() === charsetField) return undefined;
	const length = fields.get("content-length");
	return {
		name,
		hasFilename: files !== "",
		isPlainText: plainTextPattern.test(fields.get("content-type") ?? ""),
		dataBytes: length === undefined ? undefined : Number(length),
	};
}
