import t from "tap";
import { judgeCertificate } from "../../src/host/gate/certificate.ts";
import type { TlsStatus } from "../../src/tls/keeper.ts";

const nowMs = Date.parse("2026-11-30T00:00:00Z");
const good: TlsStatus = {
	source: "tailscale",
	names: ["server.tail1234.ts.net"],
	ends: "2027-02-01T00:00:00.000Z",
	problem: null,
};
const name = "server.tail1234.ts.net";

const cases: [string, Partial<TlsStatus>, string, object][] = [
	["a good certificate", {}, name, { state: "ok" }],
	["a node whose name is not known", {}, "", { state: "ok" }],
	[
		"one for all names of a domain",
		{ names: ["*.tail1234.ts.net"] },
		name,
		{ state: "ok" },
	],
	["one for an address", { names: ["100.64.0.1"] }, name, { state: "ok" }],
	[
		"none",
		{ ends: null, names: [], problem: "tailscaled answered 403" },
		name,
		{ state: "finding", evidence: [/closes every/, /403/] },
	],
	[
		"one that has ended",
		{ ends: "2026-11-29T00:00:00.000Z" },
		name,
		{ state: "finding", evidence: [/ended on 2026-11-29, and clients refuse/] },
	],
	[
		"one that is about to end",
		{ ends: "2026-12-05T00:00:00.000Z" },
		name,
		{ state: "finding", severity: "warn", evidence: [/ends on 2026-12-05/] },
	],
	[
		"a node that has been renamed",
		{},
		"gpu.tail1234.ts.net",
		{ state: "finding", severity: "warn", evidence: [/is called gpu/] },
	],
	[
		"a newer one that would not do",
		{ problem: "gate.key is not usable" },
		name,
		{ state: "finding", severity: "warn", evidence: [/until/, /gate\.key/] },
	],
];
for (const [what, more, called, expected] of cases)
	t.test(`gate.certificate: ${what}`, async (t) =>
		t.match(judgeCertificate({ ...good, ...more }, called, nowMs), expected),
	);
