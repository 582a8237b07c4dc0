import fc from "fast-check";
import ipaddr from "ipaddr.js";
import t from "tap";
import {
	type AddressSet,
	holds,
	intersect,
	overlap,
	parseSpan,
	sizeOf,
	subtract,
	union,
} from "../../src/tailscale/policy/addressSet.ts";
import { judgePolicy } from "../../src/tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";

/** A small corner of each family, so that ranges meet and every address in it can be tried. */
const spans = fc
	.record({
		family: fc.constantFrom(4 as const, 6 as const),
		ends: fc.tuple(fc.nat(15), fc.nat(15)),
	})
	.map(({ family, ends }) => ({
		family,
		first: BigInt(Math.min(...ends)),
		last: BigInt(Math.max(...ends)),
	}));
const sets = fc.array(spans, { maxLength: 6 }).map(union);

function members(set: AddressSet): string[] {
	return [4, 6].flatMap((family) =>
		Array.from({ length: 16 }, (_, value) => BigInt(value))
			.filter((value) =>
				set.some(
					(span) =>
						span.family === family && span.first <= value && value <= span.last,
				),
			)
			.map((value) => `${family}/${value}`),
	);
}

t.test("sets of addresses do what sets of their members do", async (t) => {
	fc.assert(
		fc.property(fc.array(spans, { maxLength: 6 }), sets, (list, other) => {
			const set = union(list);
			const [mine, others] = [members(set), members(other)];
			t.same(mine, members(list), "union");
			t.same(
				members(subtract(set, other)),
				mine.filter((one) => !others.includes(one)),
			);
			t.same(
				members(intersect(set, other)),
				mine.filter((one) => others.includes(one)),
			);
			t.equal(sizeOf(set), BigInt(mine.length));
			t.equal(
				holds(set, other),
				others.every((one) => mine.includes(one)),
			);
			t.equal(
				overlap(set, other),
				others.some((one) => mine.includes(one)),
			);
		}),
		{ numRuns: 300 },
	);
});

t.test("a union's spans are in order and apart", async (t) => {
	fc.assert(
		fc.property(fc.array(spans, { maxLength: 8 }), (list) => {
			const set = union(list);
			for (const [at, span] of set.entries()) {
				const next = set[at + 1];
				t.ok(
					next === undefined ||
						next.family > span.family ||
						(next.family === span.family && next.first > span.last + 1n),
				);
			}
		}),
	);
});

t.test("a range is read as the library for addresses reads it", async (t) => {
	const v4 = fc.tuple(fc.ipV4(), fc.nat(32));
	const v6 = fc.tuple(fc.ipV6(), fc.nat(128));
	fc.assert(
		fc.property(
			fc.oneof(v4, v6),
			fc.ipV4(),
			fc.ipV6(),
			([base, bits], ...others) => {
				// The library takes an IPv4 address in IPv6's form for the IPv4 one here.
				fc.pre(!base.includes(".") || !base.includes(":"));
				const span = parseSpan(`${base}/${bits}`);
				const range = ipaddr.parseCIDR(`${base}/${bits}`);
				for (const text of [base, ...others]) {
					const one = parseSpan(text);
					const address = ipaddr.parse(text);
					if (span === undefined || one === undefined) return t.fail(base);
					if (text.includes(":") && text.includes(".")) continue;
					t.equal(
						holds([span], [one]),
						address.kind() === range[0].kind() && address.match(range as never),
						`${text} in ${base}/${bits}`,
					);
				}
			},
		),
		{ numRuns: 300 },
	);
	for (const text of [
		"",
		"x",
		"1.2.3",
		"1.2.3.4/33",
		"256.1.1.1",
		"a@b",
		"tag:a",
		"::1-1.2.3.4",
		"1.2.3.9-1.2.3.4",
		"beef",
	])
		t.equal(parseSpan(text), undefined, text);
});

t.test(
	"what may open a port is what a packet's own way through the rules says",
	async (t) => {
		const address = (n: number) => `100.64.0.${n}`;
		const range = fc
			.tuple(fc.nat(7), fc.nat(7))
			.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
		const rules = fc.array(
			fc.record({
				sources: fc.array(range, { minLength: 1, maxLength: 3 }),
				targets: fc.array(range, { minLength: 1, maxLength: 3 }),
				ports: fc.constantFrom([443, 443], [22, 3000], [8000, 9000]),
			}),
			{ maxLength: 5 },
		);
		fc.assert(
			fc.property(rules, fc.nat(7), (list, server) => {
				const text = ([first, last]: readonly [number, number]) =>
					`${address(first)}-${address(last)}`;
				const { reach } = judgePolicy(
					parseTailnetPolicy(
						JSON.stringify({
							ipsets: Object.fromEntries(
								list.flatMap(({ sources, targets }, at) => [
									[`ipset:s${at}`, sources.map(text)],
									[`ipset:t${at}`, targets.map(text)],
								]),
							),
							grants: list.map(({ ports }, at) => ({
								src: [`ipset:s${at}`],
								dst: [`ipset:t${at}`],
								ip: [ports.join("-")],
							})),
						}),
						"policy.hujson",
					),
					{ tags: ["tag:ai-server"], addresses: [address(server)] },
				);
				for (const { port, who } of reach)
					t.same(
						who.map(({ source, certain }) => [source, certain]),
						list
							.flatMap(({ targets, ports: [low = 0, high = 0] }, at) =>
								low <= port &&
								port <= high &&
								targets.some(
									([first, last]) => first <= server && server <= last,
								)
									? [[`ipset:s${at}`, true]]
									: [],
							)
							.toSorted(),
						String(port),
					);
			}),
			{ numRuns: 100 },
		);
	},
);
