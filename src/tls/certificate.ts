import {
	constants,
	createPrivateKey,
	type KeyObject,
	X509Certificate,
} from "node:crypto";
import type { SecureContextOptions } from "node:tls";

/** A certificate with its key, in memory alone; it was good when it was judged. */
export interface Certificate {
	/** PEM: the node's own first, then those that vouch for it. */
	readonly cert: string;
	/** PEM. */
	readonly key: string;
	/** DNS names and addresses that it is for. */
	readonly names: readonly string[];
	/** Epoch milliseconds. */
	readonly notBeforeMs: number;
	readonly notAfterMs: number;
	/** Of the node's own certificate, SHA-256 in hex. */
	readonly fingerprint: string;
	/** Whether a handshake with it costs some milliseconds: an RSA key of more than 2048 bits. */
	readonly isCostly: boolean;
}

/** What clients call the node; any of them will do, and none is known where all are missing. */
export interface Names {
	readonly dnsNames: readonly string[];
	readonly addresses: readonly string[];
}

/** What is wrong with a pair: with which of the two, from which line on, and what to do. */
export interface Complaint {
	readonly of: "cert" | "key";
	readonly message: string;
	/** Counted from 1. */
	readonly line?: number;
}

/** One block of PEM. */
interface Block {
	readonly label: string;
	readonly text: string;
	readonly line: number;
}

/** How a server with this certificate has to be set up. TLS 1.2 or newer, and nobody renegotiates. */
export function contextOptions({
	cert,
	key,
}: Pick<Certificate, "cert" | "key">): SecureContextOptions {
	return {
		cert,
		key,
		minVersion: "TLSv1.2",
		// A client could have the gate sign again and again, for a few bytes each.
		secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
		honorCipherOrder: true,
	};
}

/**
 * Reads a certificate and its key, and says what is wrong with them.
 *
 * @param names what clients call the node; not looked at where none is known
 */
export function readPair(
	certText: string,
	keyText: string,
	names: Names,
	nowMs: number,
): Certificate | Complaint {
	const certs = blocksOf(certText).filter(({ label }) => isCertificate(label));
	const [first] = certs;
	if (first === undefined)
		return {
			of: "cert",
			message: /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(certText)
				? "holds a key and no certificate; are certFile and keyFile the wrong way round?"
				: "holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----; one in DER becomes PEM with: openssl x509 -inform DER -in FILE",
			line: 1,
		};
	const parsed: X509Certificate[] = [];
	for (const { text, line } of certs)
		try {
			parsed.push(new X509Certificate(text));
		} catch {
			return {
				of: "cert",
				message:
					"the certificate that begins here cannot be read; copy the file anew",
				line,
			};
		}
	const key = readKey(keyText);
	if ("of" in key) return key;
	const own = parsed[0] as X509Certificate;
	return (
		complaintOf(own, parsed, key, names, nowMs, first.line) ??
		contextComplaint(certText, keyText) ?? {
			cert: certText,
			key: keyText,
			names: namesOf(own),
			notBeforeMs: own.validFromDate.getTime(),
			notAfterMs: own.validToDate.getTime(),
			fingerprint: own.fingerprint256.replaceAll(":", "").toLowerCase(),
			isCostly: (key.asymmetricKeyDetails?.modulusLength ?? 0) > 2_048,
		}
	);
}

/** What is in PEM in a text, block by block; one without an end goes to the text's. */
function blocksOf(text: string): Block[] {
	const blocks: Block[] = [];
	for (const match of text.matchAll(
		/-----BEGIN ([A-Z0-9 ]+)-----(?:[\s\S]*?-----END \1-----|[\s\S]*)/g,
	))
		blocks.push({
			label: match[1] ?? "",
			text: match[0],
			line: text.slice(0, match.index).split("\n").length,
		});
	return blocks;
}

function isCertificate(label: string): boolean {
	return /^(?:X509 |TRUSTED )?CERTIFICATE$/.test(label);
}

function readKey(text: string): KeyObject | Complaint {
	const block = blocksOf(text).find(({ label }) =>
		label.endsWith("PRIVATE KEY"),
	);
	if (block === undefined)
		return {
			of: "key",
			message: blocksOf(text).some(({ label }) => isCertificate(label))
				? "holds a certificate and no key; are certFile and keyFile the wrong way round?"
				: "holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----",
			line: 1,
		};
	const { line } = block;
	if (
		block.label.startsWith("ENCRYPTED") ||
		block.text.includes("Proc-Type: 4,ENCRYPTED")
	)
		return {
			of: "key",
			message:
				"the key is locked with a passphrase, which nobody types at boot; write it without: openssl pkey -in FILE -out NEWFILE",
			line,
		};
	try {
		return createPrivateKey(block.text);
	} catch {
		return {
			of: "key",
			message: "the key that begins here cannot be read; copy the file anew",
			line,
		};
	}
}

function complaintOf(
	own: X509Certificate,
	all: readonly X509Certificate[],
	key: KeyObject,
	names: Names,
	nowMs: number,
	line: number,
): Complaint | undefined {
	if (!own.checkPrivateKey(key))
		return all.some((other) => other.checkPrivateKey(key))
			? {
					of: "cert",
					message:
						"the first certificate is not the key's own, and a later one is: the node's own has to come first, then those that vouch for it",
					line,
				}
			: {
					of: "key",
					message:
						"is not the certificate's key; take both files from the same run of what made them",
				};
	const from = own.validFromDate;
	const to = own.validToDate;
	if (nowMs < from.getTime())
		return {
			of: "cert",
			message: `the certificate is not valid before ${from.toISOString()}; wait, or set this host's clock (timedatectl)`,
			line,
		};
	if (nowMs >= to.getTime())
		return {
			of: "cert",
			message: `the certificate ended on ${to.toISOString()}; renew it, or set this host's clock (timedatectl)`,
			line,
		};
	const wanted = [...names.dnsNames, ...names.addresses];
	if (wanted.length > 0 && !isFor(own, names))
		return {
			of: "cert",
			message: `the certificate is for ${namesOf(own).join(", ") || "no name"}, and clients call this node ${wanted.join(", ")}; get one for such a name, or say in listen.tls.name which other name clients use`,
			line,
		};
	return undefined;
}

function isFor(own: X509Certificate, { dnsNames, addresses }: Names): boolean {
	return (
		// No client of today looks at the subject's common name.
		dnsNames.some(
			(name) => own.checkHost(name, { subject: "never" }) !== undefined,
		) || addresses.some((address) => own.checkIP(address) !== undefined)
	);
}

function namesOf({ subjectAltName = "" }: X509Certificate): string[] {
	return [...subjectAltName.matchAll(/(?:DNS|IP Address):([^,\s"]+)/g)].map(
		([, name]) => (name ?? "").toLowerCase(),
	);
}

/** What OpenSSL itself has against them, such as a key that is too short. */
function contextComplaint(cert: string, key: string): Complaint | undefined {
	// Who has no certificate does not load TLS.
	const { createSecureContext } = process.getBuiltinModule("node:tls");
	try {
		createSecureContext(contextOptions({ cert, key }));
		return undefined;
	} catch (error) {
		return {
			of: "cert",
			message: `OpenSSL does not take it: ${(error as Error).message}; get one with a key of ECDSA P-256, or of RSA with 2048 bits or more`,
		};
	}
}
