import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "./temporaryFolder.ts";

const run = promisify(execFile);

export interface CertificateOptions {
	/** DNS names and addresses; `server.tail1234.ts.net` and 127.0.0.1 if nothing is said. */
	readonly names?: readonly string[];
	readonly from?: Date;
	readonly to?: Date;
	/** P-256 if nothing is said. */
	readonly rsaBits?: number;
}

/** A certificate with its key, as files and as text. */
export interface IssuedPair {
	readonly cert: string;
	readonly key: string;
}

/** An authority that lasts for a test, by openssl. */
export interface Authority {
	/** Its own certificate: for clients that are to trust it. */
	readonly ca: string;
	readonly caFile: string;
	issue(options?: CertificateOptions): Promise<IssuedPair>;
}

export const ownName = "server.tail1234.ts.net";
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** One that has been good for an hour, and is for so many days to come. */
export function issueFor(
	authority: Authority,
	days: number,
): Promise<IssuedPair> {
	return authority.issue({
		from: new Date(Date.now() - hourMs),
		to: new Date(Date.now() + days * dayMs),
	});
}

/** As tailscaled gives it: key and certificate in one text. */
export const pemOf = ({ cert, key }: IssuedPair) => key + cert;

export async function makeAuthority(t: {
	teardown(action: () => unknown): unknown;
}): Promise<Authority> {
	const folder = await temporaryFolder(t);
	const at = (name: string) => path.join(folder, name);
	const openssl = (...args: string[]) => run("openssl", args, { cwd: folder });
	await writeFile(
		at("ca.conf"),
		`[ca]
default_ca = test
[test]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = optional
`,
	);
	await writeFile(at("index.txt"), "");
	await openssl(
		...["req", "-x509", "-newkey", "ec", "-pkeyopt"],
		...["ec_paramgen_curve:P-256", "-nodes", "-days", "3650"],
		...["-subj", "/CN=llamagate test authority"],
		...["-keyout", "ca.key", "-out", "ca.crt"],
	);
	let issued = 0;
	/** openssl moves its list of what it has signed about, so it signs one after the other. */
	let signing: Promise<unknown> = Promise.resolve();
	return {
		ca: await readFile(at("ca.crt"), "utf8"),
		caFile: at("ca.crt"),
		async issue({
			names = [ownName, "127.0.0.1"],
			from = new Date(Date.now() - dayMs),
			to = new Date(Date.now() + 90 * dayMs),
			rsaBits,
		} = {}) {
			const id = String(++issued);
			const kinds = names.map((name) =>
				isIP(name) === 0 ? `DNS:${name}` : `IP:${name}`,
			);
			await openssl(
				...["req", "-new", "-nodes", "-subj", "/CN=test"],
				...(rsaBits === undefined
					? ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
					: ["-newkey", `rsa:${rsaBits}`]),
				...(kinds.length === 0
					? []
					: ["-addext", `subjectAltName=${kinds.join(",")}`]),
				...["-keyout", `${id}.key`, "-out", `${id}.csr`],
			);
			const sign = () =>
				openssl(
					...["ca", "-batch", "-config", "ca.conf", "-notext"],
					...["-cert", "ca.crt", "-keyfile", "ca.key"],
					...["-startdate", formatTime(from), "-enddate", formatTime(to)],
					...["-in", `${id}.csr`, "-out", `${id}.crt`],
				);
			const signed = signing.then(sign);
			signing = signed.catch(() => {});
			await signed;
			return {
				cert: await readFile(at(`${id}.crt`), "utf8"),
				key: await readFile(at(`${id}.key`), "utf8"),
			};
		},
	};
}

/** ASN.1's GeneralizedTime, in whole seconds. */
function formatTime(time: Date): string {
	return `${time.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`;
}
