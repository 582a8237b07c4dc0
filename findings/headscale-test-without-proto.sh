#!/usr/bin/env bash
# A policy's test says "accept" or "deny" of a destination and one port, with a "proto"
# or without. The only rule here lets ICMP through, which has no ports.
# Guess: without "proto" a test of port 11434 is of TCP, or TCP and UDP; "accept" fails
# and "deny" passes.
# Seen: it is the other way round. Without "proto" ICMP will do, so that a test passes
# of a port that nobody can reach, and a rule for ping alone breaks all "deny".
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_headscale
register gpu alice
register phone bob
with_test() {
	policy_check '{"acls":[{"action":"accept","proto":"icmp","src":["bob@"],"dst":["alice@:*"]}],"tests":[{"src":"bob@",'"$1"'}]}'
}
accept='"accept":["alice@:11434"]'
deny='"deny":["alice@:11434"]'
seen="accept: $(with_test "$accept"); deny: $(with_test "$deny"); accept of tcp: $(with_test "$accept,\"proto\":\"tcp\""); deny of tcp: $(with_test "$deny,\"proto\":\"tcp\"")"

conclude "$headscale_version" 'accept, with and without tcp: expected ALLOWED, got DENIED; deny: Policy is valid' "$seen" \
	'accept: Policy is valid; deny: test(s) failed: bob@ -> alice@:11434: expected DENIED, got ALLOWED; accept of tcp: test(s) failed: bob@ -> alice@:11434 (tcp): expected ALLOWED, got DENIED; deny of tcp: Policy is valid'
