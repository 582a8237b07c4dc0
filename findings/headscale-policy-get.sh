#!/usr/bin/env bash
# `headscale policy get` prints the policy. Where it stands in a file, SIGHUP reads
# that anew, and keeps to the old policy if the new one has a mistake.
# Guess: what is printed is what is in force.
# Seen: it is what is in the file, also when that was refused and the old policy holds.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_headscale
echo '{"acls":[{"action":"accept","src":["group:none"],"dst":["*:*"]}]}' >"$lab/policy.hujson"
kill -HUP "${started[0]}"
until_so 20 grep -q 'reloading policy' "$lab/headscale.log"
seen="the reload: $(grep -o 'group not defined in policy' "$lab/headscale.log" | head -n 1); policy get: $(headscale policy get | grep -o 'group:none')"

conclude "$headscale_version" 'the reload: group not defined in policy; policy get: {}' "$seen" \
	'the reload: group not defined in policy; policy get: group:none'
