import t from "tap";
import { chainsOf } from "../../src/system/guard.ts";

t.test("a table that goes while nft lists it holds nothing", (t) => {
	t.strictSame(chainsOf({ code: 0, stdout: "" }), []);
	t.strictSame(chainsOf({ code: 0, stdout: '{"nftables": [' }), []);
	t.strictSame(chainsOf({ code: 1, stdout: "" }), []);
	const chain =
		'{"chain":{"family":"inet","table":"llamagate","name":"input","type":"filter","hook":"input","prio":-10,"policy":"accept"}}';
	const there = chainsOf({ code: 0, stdout: `{"nftables":[${chain}]}` });
	t.equal(there.length, 1);
	t.end();
});
