#!/usr/bin/env bash
# A policy may have "tests" that say what its rules must let through and what not.
# Guess: the rules decide. A test of a rule that is right passes on a new headscale.
# Seen: it fails, and so does a test of what is denied, until the user has a node
# and a node has the tag: names stand for the addresses of their nodes, and there
# are none. So a policy with tests cannot be put in force before its first devices.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_headscale
with_test() {
	policy_check '{"tagOwners":{"tag:gpu":["alice@"]},"acls":[{"action":"accept","src":["alice@"],"dst":["tag:gpu:22"]}],"tests":[{"src":"alice@",'"$1"'}]}'
}
seen="accept: $(with_test '"accept":["tag:gpu:22"]'); deny: $(with_test '"deny":["tag:gpu:23"]')"

conclude "$headscale_version" 'accept: Policy is valid; deny: Policy is valid' "$seen" \
	'accept: test(s) failed: alice@: source "alice@" resolved to no IP addresses; deny: test(s) failed: alice@: source "alice@" resolved to no IP addresses'
