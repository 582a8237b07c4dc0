#!/usr/bin/env bash
# headscale has an API over HTTP, and its own commands print JSON with `--output json`.
# Who writes a script for one may be glad of the other.
# Guess: both say a node in the same JSON.
# Seen: the names differ (`given_name`, `givenName`), an id is a number or a text, a time
# is an object of seconds or a text, and how it was registered a number or a name. And the
# command leaves out whatever is false or empty: a node that is offline has no `online`.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need curl
start_headscale
register laptop alice
headscale nodes list --output json >"$lab/command.json"
url=$(sed -n 's/^server_url: //p' "$lab/headscale.yaml")
curl -sf -m 20 -H "Authorization: Bearer $(headscale apikeys create)" "$url/api/v1/node" >"$lab/api.json"
cat >"$lab/read.js" <<'JS'
const [command, api] = process.argv.slice(2).map((file) => JSON.parse(require("fs").readFileSync(file, "utf8")));
const said = (node) =>
	[["id"], ["given_name", "givenName"], ["created_at", "createdAt"], ["register_method", "registerMethod"], ["online"], ["tags"]]
		.map((names) => names.find((name) => name in node))
		.filter((name) => name)
		.map((name) => `${name} (${Array.isArray(node[name]) ? "list" : typeof node[name]})`)
		.join(", ");
console.log(`command: ${said(command[0])}; API: ${said(api.nodes[0])}`);
JS
seen=$(node "$lab/read.js" "$lab/command.json" "$lab/api.json")

conclude "$headscale_version" 'the same of both' "$seen" \
	'command: id (number), given_name (string), created_at (object), register_method (number); API: id (string), givenName (string), createdAt (string), registerMethod (string), online (boolean), tags (list)'
