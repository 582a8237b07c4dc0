import t from "tap";
import {
	isLoopbackAddress,
	isTailscaleAddress,
	parseAddress,
	parseRange,
} from "../../src/net/ranges.ts";

t.test(
	"an IPv6 address that ends in an IPv4 one is not that IPv4 address, however it is written",
	async (t) => {
		for (const text of ["::100.64.0.1", "0::100.64.0.1", "::6440:1"]) {
			t.equal(parseAddress(text)?.toString(), "::6440:1", text);
			t.notOk(isTailscaleAddress(text), text);
		}
		t.notOk(isLoopbackAddress("::127.0.0.1"));
		t.equal(
			parseRange("::100.64.0.0/106")?.join("/"),
			parseRange("::6440:0/106")?.join("/"),
		);
	},
);

t.test(
	"an IPv4 address that a socket shows mapped into IPv6 is that address",
	async (t) => {
		for (const text of ["::ffff:100.64.0.1", "::FFFF:6440:1"]) {
			t.equal(parseAddress(text)?.toString(), "100.64.0.1", text);
			t.ok(isTailscaleAddress(text), text);
		}
		t.ok(isLoopbackAddress("::ffff:127.0.0.1"));
	},
);
