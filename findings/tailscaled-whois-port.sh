#!/usr/bin/env bash
# tailscaled's LocalAPI says who has an address: /localapi/v0/whois?addr=ADDRESS:PORT.
# Guess: the port means nothing for an address that no node has, and the 404 is there
# at once, with and without it.
# Seen: with port 0 or none it is there within a millisecond; with any other port it
# takes a third of a second, as tailscaled looks several times whether it relays a
# connection from that port. That adds up for whoever asks about each connection.
# An IPv6 address needs a port in brackets, or neither: [fd7a::1] is a 400.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need curl
real_parts
start tailscaled "$parts/bin/tailscaled" --no-logs-no-support --tun=userspace-networking --statedir="$lab/state" --socket="$lab/tailscaled.sock" --port=0
whois() {
	curl -sS -g -m 20 -o "$lab/answer" -w '%{http_code} %{time_total}' --unix-socket "$lab/tailscaled.sock" "http://local-tailscaled.sock/localapi/v0/whois?addr=$1"
}
until_so 30 whois 100.64.0.9
# A fifth of a second is far from both.
told() {
	local status time
	read -r status time < <(whois "$1" | sed 's/$/\n/')
	awk -v status="$status" -v time="$time" 'BEGIN { print status, time < 0.2 ? "at once" : "late" }'
}
seen="without a port $(told 100.64.0.9), port 0 $(told 100.64.0.9:0), port 4000 $(told 100.64.0.9:4000), fd7a::1 $(told fd7a::1), [fd7a::1]:0 $(told '[fd7a::1]:0'), [fd7a::1] $(told '[fd7a::1]')"

conclude "tailscaled $(version_of tailscale)" 'all of them: 404 at once' "$seen" \
	'without a port 404 at once, port 0 404 at once, port 4000 404 late, fd7a::1 404 at once, [fd7a::1]:0 404 at once, [fd7a::1] 400 at once'
