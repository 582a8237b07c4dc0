/** What a form says of its model, or why it cannot be judged. */
export type FormResult =
	| { readonly kind: "model"; readonly value: string }
	| { readonly kind: "unclear"; readonly message: string };

// One boundary, spelt plainly: Go prefers `boundary*` to `boundary` (mime.ParseMediaType).
const typePattern =
	/^multipart\/form-data; ?boundary=("?)([A-Za-z0-9'_-]{1,70})\1$/i;
const dispositionPattern =
	/^content-disposition: form-data; name="([^"\\%\r\n]*)"(; filename="[^"\\\r\n]*")?$/i;
const contentTypePattern = /^content-type: [^\r\n]*$/i;

const unclear = (message: string): FormResult => ({ kind: "unclear", message });

/**
 * Reads the field `model` of a multipart form (RFC 7578), and only of one that
 * every reader takes apart alike: plain boundary, plain field names, no
 * preamble, no extended parameters (RFC 2231), and the boundary nowhere but
 * between the parts.
 */
export function readFormModel(
	contentType: string | undefined,
	body: Buffer,
): FormResult {
	const boundary = typePattern.exec(contentType ?? "")?.[2];
	if (boundary === undefined)
		return unclear(
			"the form's Content-Type must be multipart/form-data with one plain boundary",
		);
	const delimiter = `--${boundary}`;
	const form = body.toString("latin1");
	const [preamble, ...parts] = form.split(delimiter);
	const last = parts.pop();
	if (preamble !== "" || (last !== "--\r\n" && last !== "--"))
		return unclear("the form must be its parts and nothing else");
	let model: string | undefined;
	for (const part of parts) {
		const headEnd = part.indexOf("\r\n\r\n");
		if (!part.startsWith("\r\n") || headEnd === -1 || !part.endsWith("\r\n"))
			return unclear("the form's parts are not set apart as they should be");
		const lines = part.slice(2, headEnd).split("\r\n");
		const dispositions = lines.flatMap((line) => {
			const match = dispositionPattern.exec(line);
			return match === null ? [] : [match];
		});
		const [disposition] = dispositions;
		if (
			disposition === undefined ||
			dispositions.length > 1 ||
			!lines.every(
				(line) =>
					dispositionPattern.test(line) || contentTypePattern.test(line),
			)
		)
			return unclear(
				"a part of the form has a head that could be read in two ways",
			);
		const [, name = "", filename] = disposition;
		if (name.trim().toLowerCase() !== "model") continue;
		if (name !== "model" || filename !== undefined || model !== undefined)
			return unclear('the form must have exactly one plain field "model"');
		model = part.slice(headEnd + 4, -2);
	}
	return model === undefined
		? unclear('the form must have exactly one plain field "model"')
		: { kind: "model", value: model };
}
