import { readOrdinaryFile, stateNow } from "../config/ordinaryFile.ts";
import { unreadable } from "../config/readConfig.ts";
import { readSecretFile } from "../config/secretFile.ts";
import type { TlsSettings } from "../config/tls.ts";
import { BadFileError } from "../errors.ts";
import { createWhois } from "../tailscale/whois.ts";
import { type Certificate, type Names, readPair } from "./certificate.ts";

/** Where a certificate and its key lie. */
export type PairFiles = Extract<TlsSettings, { kind: "files" }>;

/** Of a node that nobody knows a name of. */
export const noNames: Names = { dnsNames: [], addresses: [] };

/**
 * Reads a certificate and its key from files. Nobody but its owner may read the
 * key; one of root's may be shown to the daemon's group.
 *
 * @param names what clients call the node, as `namesFor` has it
 * @throws {BadFileError} that names the file, its line and what to do
 */
export async function loadPair(
	{ certFile, keyFile }: PairFiles,
	names: Names,
	nowMs: number,
): Promise<Certificate> {
	const certText = await read(certFile, "certFile");
	const keyText = await read(keyFile, "keyFile");
	const pair = readPair(certText, keyText, names, nowMs);
	if (!("of" in pair)) return pair;
	const { of, message, line } = pair;
	throw new BadFileError(of === "cert" ? certFile : keyFile, [
		{ path: "", message, ...(line !== undefined && { line }) },
	]);
}

async function read(
	file: string,
	setting: "certFile" | "keyFile",
): Promise<string> {
	const named = `It is named by listen.tls.${setting}, relative to the configuration file.`;
	if (setting === "keyFile") return readSecretFile(file, named);
	const { text } = await readOrdinaryFile(file).catch((error: unknown) => {
		throw unreadable(file, error, named);
	});
	return text;
}

/**
 * What clients call the node: the name that is set, or else what tailscaled says.
 *
 * @param socket tailscaled's
 * @param otherwise where it does not answer, or knows none
 */
export async function namesFor(
	{ name }: PairFiles,
	socket: string,
	otherwise: Names,
): Promise<Names> {
	if (name !== undefined) return { dnsNames: [name], addresses: [] };
	const answer = await createWhois({ socket }).status();
	if (answer.kind !== "status" || answer.status.dnsName === "")
		return otherwise;
	const { dnsName, addresses } = answer.status;
	return { dnsNames: [dnsName], addresses };
}

/** What tells one state of the files from another; it changes when either is replaced or written. */
export async function stateOf({
	certFile,
	keyFile,
}: PairFiles): Promise<string> {
	return (await Promise.all([certFile, keyFile].map(stateNow))).join(", ");
}
