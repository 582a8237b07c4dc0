import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/gate.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

const run = promisify(execFile);

export interface Certificate {
	readonly cert: Buffer;
	readonly key: Buffer;
}

/** An authority of the test's own, and what makes certificates with it. */
export async function makeAuthority(t: Tap) {
	const folder = await temporaryFolder(t);
	const openssl = (...args: string[]) => run("openssl", args, { cwd: folder });
	await openssl(
		...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
		...["-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "3650"],
		...[
			"-subj",
			"/O=Test authority",
			"-addext",
			"basicConstraints=critical,CA:TRUE",
		],
	);
	await writeFile(path.join(folder, "index.txt"), "");
	await writeFile(
		path.join(folder, "ca.conf"),
		`[ca]
default_ca = test
[test]
database = index.txt
new_certs_dir = .
policy = any
copy_extensions = copyall
rand_serial = yes
unique_subject = no
[any]
commonName = supplied
`,
	);
	let made = 0;
	return {
		file: path.join(folder, "ca.pem"),
		/** @param days from now; negative for one that has run out */
		async sign(name: string, days: number): Promise<Certificate> {
			const file = `leaf${++made}`;
			await openssl(
				...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
				...["-nodes", "-keyout", `${file}.key`, "-out", `${file}.csr`],
				...["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`],
			);
			// `x509` takes no time in the past, `ca` does.
			const at = (offsetDays: number) =>
				`${new Date(Date.now() + offsetDays * 86_400_000)
					.toISOString()
					.replace(/\.\d+|[-:T]/g, "")}`;
			await openssl(
				...["ca", "-batch", "-notext", "-config", "ca.conf", "-md", "sha256"],
				...["-cert", "ca.pem", "-keyfile", "ca.key"],
				...["-in", `${file}.csr`, "-out", `${file}.pem`],
				...["-startdate", at(-10), "-enddate", at(days)],
			);
			return {
				cert: await readFile(path.join(folder, `${file}.pem`)),
				key: await readFile(path.join(folder, `${file}.key`)),
			};
		},
		async selfSign(name: string): Promise<Certificate> {
			await openssl(
				...[
					"req",
					"-x509",
					"-newkey",
					"ec",
					"-pkeyopt",
					"ec_paramgen_curve:P-256",
				],
				...["-nodes", "-keyout", "self.key", "-out", "self.pem", "-days", "90"],
				...["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`],
			);
			return {
				cert: await readFile(path.join(folder, "self.pem")),
				key: await readFile(path.join(folder, "self.key")),
			};
		},
	};
}
