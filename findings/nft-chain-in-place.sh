#!/usr/bin/env bash
# A rule of nft may jump to a chain that stands in its place, between braces. The
# rules in force are printed as text and, with -j, as JSON, where each statement of a
# rule is an object whose only member names it (libnftables-json(5)).
# Guess: the chain is in the JSON as rules are, as objects.
# Seen: the statement is a string, the text of the jump as it is printed without -j,
# line ends and tabs within; on stderr nft warns that there is no JSON for it; it
# refuses to read its own JSON again. A reader that takes each statement for
# an object breaks, or passes over rules that accept.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need nft unshare node
cat >"$lab/rules" <<'RULES'
table inet t {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state new jump {
			tcp dport 22 accept
		}
	}
}
RULES
echo 'nft -f rules' >"$lab/rules.sh"
nft_both_ways rules.sh
cat >"$lab/kinds.mjs" <<'JS'
import { readFileSync } from "node:fs";
const { nftables } = JSON.parse(readFileSync(process.argv[2]));
const statements = nftables.flatMap(({ rule }) => rule?.expr ?? []);
console.log(statements.map((one) => (typeof one === "string" ? `a string, ${JSON.stringify(one)}` : `an object, ${Object.keys(one)}`)).join("; "));
JS
seen="text: $(cat "$lab/text.read"); JSON: $(node "$lab/kinds.mjs" "$lab/json") ($(cat "$lab/json.read"))"

conclude "$(nft --version | cut -d ' ' -f 1,2)" \
	'each statement an object, the chain with its rules among them, and both forms read again' "$seen" \
	'text: read again; JSON: an object, match; a string, "jump {\n\t\t\ttcp dport 22 accept\n\t\t}" (refused)'
