#!/usr/bin/env bash
# `headscale policy check` "validates the policy against the server's live users
# and nodes", as its help has it.
# Guess: a rule for a user who is not there (a slip of the pen) is found, as a group,
# a tag or a host that is not there is.
# Seen: the rule is valid and is for nobody. The same name as the source of a test is
# found.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_headscale
rule_for() { policy_check '{"acls":[{"action":"accept","src":["'"$1"'"],"dst":["*:*"]}]'"${2:-}"'}'; }
seen="alcie@: $(rule_for alcie@); group:gpu: $(rule_for group:gpu); alcie@ in a test: $(rule_for alice@ ',"tests":[{"src":"alcie@","deny":["100.64.0.1:22"]}]')"

conclude "$headscale_version" 'none of the three is valid' "$seen" \
	'alcie@: Policy is valid; group:gpu: parsing policy: group not defined in policy: "group:gpu"; alcie@ in a test: test(s) failed: alcie@: failed to resolve source "alcie@": resolving: user not found: token "alcie@"'
