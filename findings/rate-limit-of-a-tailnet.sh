#!/usr/bin/env bash
# @fastify/rate-limit counts by the peer's address, if nothing else is said.
# Guess: two devices of a tailnet have a count each, by IPv4 and by IPv6.
# Seen: by IPv6 it counts by /64, as providers hand out to homes. headscale gives
# its nodes addresses from one /64 (fd7a:115c:a1e0::1, ::2, ...), so all devices
# share one count. The option is ipv6Subnet.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm fastify@5.12.8 @fastify/rate-limit@11.2.0
cat >"$lab/limit.mjs" <<'JS'
import rateLimit from "@fastify/rate-limit";
import Fastify from "fastify";
async function statuses(...addresses) {
	const app = Fastify();
	await app.register(rateLimit, { max: 1, timeWindow: 60_000 });
	app.get("/", async () => "");
	const replies = [];
	for (const remoteAddress of addresses)
		replies.push((await app.inject({ url: "/", remoteAddress })).statusCode);
	return replies.join(" ");
}
console.log(
	`with 1 a minute for each: ${await statuses("100.64.0.1", "100.64.0.2")} by IPv4, ${await statuses("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2")} by IPv6`,
);
JS
seen=$(timeout 30 node "$lab/limit.mjs")

conclude '@fastify/rate-limit 11.2.0 (npm)' \
	'with 1 a minute for each: 200 200 by IPv4, 200 200 by IPv6' "$seen" \
	'with 1 a minute for each: 200 200 by IPv4, 200 429 by IPv6'
