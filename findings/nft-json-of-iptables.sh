#!/usr/bin/env bash
# nft prints the rules in force as text and as JSON (-j), also those that iptables
# made; its manual says that JSON has `xt` in place of what cannot be translated.
# Guess: what the text says, the JSON says too.
# Seen: the text has the ports and the address, and nft reads it again. The JSON has
# `xt` with a name alone: no ports, no address, no word whether a rule rejects. nft
# refuses to read it. Whoever judges a firewall by the JSON misses what Docker and
# others have iptables do.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need nft iptables-nft unshare node
cat >"$lab/rules.sh" <<'SH'
iptables-nft -A INPUT -p tcp -m multiport --dports 80,11434 -j REJECT
iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:11434
SH
nft_both_ways rules.sh
cat >"$lab/xt.mjs" <<'JS'
import { readFileSync } from "node:fs";
const { nftables } = JSON.parse(readFileSync(process.argv[2]));
const xt = nftables.flatMap(({ rule }) => rule?.expr ?? []).flatMap(({ xt }) => xt ?? []);
console.log(xt.map(JSON.stringify).join(" "));
JS
words=$(grep -oE 'dport \{ 80, 11434 \}|reject|dnat to [0-9.:]+' "$lab/text" | paste -sd ';' | sed 's/;/; /g')
seen="text: $words ($(cat "$lab/text.read")); JSON: $(node "$lab/xt.mjs" "$lab/json") ($(cat "$lab/json.read"))"

conclude "$(nft --version | cut -d ' ' -f 1,2), $(iptables-nft --version)" \
	'text and JSON have the ports, the address and "reject", and both are read again' "$seen" \
	'text: dport { 80, 11434 }; reject; dnat to 10.0.0.1:11434 (read again); JSON: {"type":"match","name":"multiport"} {"type":"target","name":"REJECT"} {"type":"target","name":"DNAT"} (refused)'
