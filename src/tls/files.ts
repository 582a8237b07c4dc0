import { stat } from "node:fs/promises";
import { readOrdinaryFile } from "../config/ordinaryFile.ts";
import { unreadable } from "../config/readConfig.ts";
import { readSecretFile } from "../config/secretFile.ts";
import type { TlsSettings } from "../config/tls.ts";
import { BadFileError } from "../errors.ts";
import { createWhois } from "../tailscale/whois.ts";
import { type Certificate, type Names, readPair } from "./certificate.ts";

/** Where a certificate and its key lie. */
export type PairFiles = Extract<TlsSettings, { kind: "files" }>;

/**
 * Reads a certificate and its key from files. Nobody but its owner may read the
 * key; one of root's may be shown to the daemon's group.
 *
 * @param socket tailscaled's, which knows what the node is called; where it does
 *   not answer, and no name is set, names are not looked at
 * @throws {BadFileError} that names the file, its line and what to do
 */
export async function loadPair(
	files: PairFiles,
	socket: string,
	nowMs: number,
): Promise<Certificate> {
	const { certFile, keyFile } = files;
	const certText = await read(certFile, "certFile");
	const keyText = await read(keyFile, "keyFile");
	const names = await namesFor(files, socket);
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

async function namesFor(files: PairFiles, socket: string): Promise<Names> {
	if (files.name !== undefined)
		return { dnsNames: [files.name], addresses: [] };
	const answer = await createWhois({ socket }).status();
	if (answer.kind !== "status" || answer.status.dnsName === "")
		return { dnsNames: [], addresses: [] };
	const { dnsName, addresses } = answer.status;
	return { dnsNames: [dnsName], addresses };
}

/** What tells one state of the files from another; it changes when either is replaced or written. */
export async function stateOf({
	certFile,
	keyFile,
}: PairFiles): Promise<string> {
	const states = await Promise.all(
		[certFile, keyFile].map((file) =>
			stat(file).then(
				({ ino, size, mtimeMs, ctimeMs }) =>
					`${ino} ${size} ${mtimeMs} ${ctimeMs}`,
				(error: NodeJS.ErrnoException) => error.code ?? "unreadable",
			),
		),
	);
	return states.join(", ");
}
