import t from "tap";
import { TurnsByKey } from "../../src/gate/turnsByKey.ts";

function fill(...entries: readonly string[]): TurnsByKey<string> {
	const turns = new TurnsByKey<string>();
	for (const entry of entries) turns.add(entry.charAt(0), entry);
	return turns;
}

t.test("keys take turns, and of each the first come goes first", (t) => {
	const turns = fill("a1", "a2", "a3", "b1", "c1", "b2");
	const order: (string | undefined)[] = [];
	while (!turns.isEmpty) order.push(turns.next());
	t.same(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
	t.equal(turns.next(), undefined);
	t.end();
});

t.test("a key that may not go keeps its place", (t) => {
	const turns = fill("a1", "a2", "b1", "b2");
	t.equal(
		turns.next((key) => key !== "a"),
		"b1",
	);
	t.equal(
		turns.next(() => false),
		undefined,
	);
	t.equal(turns.next(), "a1");
	t.equal(turns.next(), "b2");
	t.end();
});

t.test("what waits no more has no turn", (t) => {
	const turns = fill("a1", "a2", "b1");
	t.ok(turns.drop("a", "a1"));
	t.ok(turns.drop("b", "b1"));
	t.notOk(turns.drop("b", "b1"), "it is gone");
	t.equal(turns.countOf("a"), 1);
	t.equal(turns.countOf("b"), 0);
	t.equal(turns.next(), "a2");
	t.ok(turns.isEmpty);
	t.notOk(turns.drop("a", "a2"), "it has had its turn");
	t.end();
});
