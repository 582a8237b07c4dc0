import t from "tap";
import { type Certificate, readPair } from "../../src/tls/certificate.ts";
import { makeAuthority, ownName } from "../support/certificates.ts";
import { requireTool } from "../support/tools.ts";

const own = { dnsNames: [ownName], addresses: ["100.101.102.104"] };
const dayMs = 86_400_000;

if (requireTool(t, "openssl")) {
	const authority = await makeAuthority(t);
	const good = await authority.issue();
	const other = await authority.issue();
	const nowMs = Date.now();
	const judge = (cert: string, key = good.key, names = own, atMs = nowMs) =>
		readPair(cert, key, names, atMs);

	t.test("a good pair is taken, with its names and its end", async (t) => {
		const read = judge(good.cert) as Certificate;
		t.same(read.names, [ownName, "127.0.0.1"]);
		t.match(read.fingerprint, /^[0-9a-f]{64}$/);
		t.ok(read.notBeforeMs < nowMs && nowMs < read.notAfterMs);
		t.equal(read.isCostly, false);
	});

	t.test("a key and certificates may stand in one text", async (t) => {
		const both = `${good.key}${good.cert}${authority.ca}`;
		t.equal((judge(both, both) as Certificate).names[0], ownName);
	});

	t.test("a certificate for the node's address is taken", async (t) => {
		const byAddress = await authority.issue({ names: ["100.101.102.104"] });
		t.notOk("of" in judge(byAddress.cert, byAddress.key));
	});

	t.test("names are not looked at where none is known", async (t) => {
		const elsewhere = await authority.issue({ names: ["llm.example.com"] });
		const names = { dnsNames: [], addresses: [] };
		t.notOk("of" in judge(elsewhere.cert, elsewhere.key, names));
	});

	t.test("a handshake with a large RSA key is costly", async (t) => {
		const large = await authority.issue({ rsaBits: 3072 });
		t.equal((judge(large.cert, large.key) as Certificate).isCostly, true);
	});

	const elsewhere = await authority.issue({ names: ["llm.example.com"] });
	const nameless = await authority.issue({ names: [] });
	const short = await authority.issue({ rsaBits: 1024 });
	const refused: [string, ReturnType<typeof judge>, object][] = [
		[
			"one that has ended",
			judge(good.cert, good.key, own, nowMs + 91 * dayMs),
			{ of: "cert", line: 1, message: /^the certificate ended on 20.*renew/ },
		],
		[
			"one that is not valid yet",
			judge(good.cert, good.key, own, nowMs - 2 * dayMs),
			{ of: "cert", line: 1, message: /not valid before 20.*clock/ },
		],
		[
			"one of another name",
			judge(elsewhere.cert, elsewhere.key),
			{
				of: "cert",
				message:
					/is for llm\.example\.com, and clients call this node server\.tail1234\.ts\.net, 100\.101\.102\.104; .*listen\.tls\.name/,
			},
		],
		[
			"one of no name but the subject's, at which no client looks",
			judge(nameless.cert, nameless.key),
			{ of: "cert", message: /is for no name/ },
		],
		[
			"one without its key",
			judge(good.cert, other.key),
			{ of: "key", message: /^is not the certificate's key/ },
		],
		[
			"one behind that of who vouches for it",
			judge(authority.ca + good.cert),
			{ of: "cert", line: 1, message: /has to come first/ },
		],
		[
			"one that is damaged, with its line",
			judge(`# ours\n\n${good.cert.replace(/\n[A-Za-z0-9+/=]{20}/, "\n!")}`),
			{ of: "cert", line: 3, message: /that begins here cannot be read/ },
		],
		[
			"one that breaks off",
			judge(good.cert.slice(0, 200)),
			{ of: "cert", line: 1, message: /that begins here cannot be read/ },
		],
		[
			"a damaged one behind a good one, with its line",
			judge(`${good.cert}-----BEGIN CERTIFICATE-----\nAAAA\n`),
			{ of: "cert", line: good.cert.split("\n").length },
		],
		[
			"an empty file",
			judge(""),
			{ of: "cert", line: 1, message: /holds no certificate in PEM/ },
		],
		[
			"files the wrong way round",
			judge(good.key, good.cert),
			{ of: "cert", message: /wrong way round/ },
		],
		[
			"a certificate in place of the key",
			judge(good.cert, good.cert),
			{ of: "key", message: /wrong way round/ },
		],
		[
			"a key that is garbage",
			judge(
				good.cert,
				"x\n-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n",
			),
			{ of: "key", line: 2, message: /that begins here cannot be read/ },
		],
		[
			"a key with a passphrase",
			judge(
				good.cert,
				good.key
					.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
					.replace("END PRIVATE", "END ENCRYPTED PRIVATE"),
			),
			{ of: "key", line: 1, message: /locked with a passphrase.*openssl pkey/ },
		],
		[
			"a key that is too short",
			judge(short.cert, short.key),
			{ of: "cert", message: /OpenSSL does not take it: .*2048 bits/ },
		],
	];
	for (const [what, answer, expected] of refused)
		t.test(`refused: ${what}`, async (t) => t.match(answer, expected));
}
