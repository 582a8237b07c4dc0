# What the findings share: a folder and programs that go with the script, pinned
# packages, and the verdict. Read by each of them; does nothing by itself.
#
# A script ends with 0 if all is as written down, with 1 if something changed,
# and with 2 if it could not run.
set -Eeuo pipefail
export LC_ALL=C.UTF-8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The real programs, which test/real/get.ts gets; test/real/parts.ts has their versions.
parts=${LLAMAGATE_REAL:-$root/.cache/real}
# The project's own Node first, if it is installed.
PATH=$root/node_modules/.bin:$PATH
lab=$(mktemp -d)
started=()
verdict=2

leave() {
	trap - ERR
	set +e
	local pid
	for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
	for pid in "${started[@]}"; do wait "$pid" 2>/dev/null; done
	rm -rf "$lab"
	exit "$verdict"
}
trap leave EXIT
trap 'verdict=2; exit' INT TERM
trap 'echo "could not run: line $LINENO: $BASH_COMMAND" >&2' ERR

# need PROGRAM...: ends the script where one is missing.
need() {
	local program
	for program; do
		command -v "$program" >/dev/null || {
			echo "could not run: there is no $program here" >&2
			exit 2
		}
	done
}

# start LOG COMMAND...: runs it beside the script, and ends it with the script.
start() {
	local log=$1
	shift
	"$@" >"$lab/$log.log" 2>&1 &
	started+=($!)
}

# until_so SECONDS COMMAND...: tries it until it succeeds.
until_so() {
	local tries=$(($1 * 10))
	shift
	while ((tries-- > 0)); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "waited in vain for: $*" >&2
	return 2
}

free_port() {
	node -e 'require("net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port); this.close() })'
}

# from_npm PACKAGE@VERSION...: into $lab, where a script of Node finds them.
from_npm() {
	need npm node
	(cd "$lab" && timeout 300 npm install --no-audit --no-fund --ignore-scripts --loglevel=error "$@" >/dev/null)
}

# from_pypi PACKAGE==VERSION...: for $lab/venv/bin/python.
from_pypi() {
	need python3
	timeout 60 python3 -m venv "$lab/venv"
	timeout 500 "$lab/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "$@"
}

# from_go PACKAGE@VERSION...: for a main.go in $lab, which `go run .` runs there.
from_go() {
	need go
	(cd "$lab" && go mod init lab && timeout 200 go get "$@") >/dev/null 2>&1
}

# real_parts: gets Ollama, tailscaled and headscale, if they are not there yet.
real_parts() {
	need flock node
	mkdir -p "$parts"
	timeout 1200 flock "$parts/lock" node "$root/test/real/get.ts" "$parts" >"$lab/parts.log" 2>&1 || {
		tail -n 1 "$lab/parts.log" >&2
		exit 2
	}
}

# version_of PART: as the project pins it; of headscale, whose build does not know.
version_of() {
	node -p 'JSON.parse(fs.readFileSync(process.argv[1]))[process.argv[2]].version' "$parts/versions.json" "$1"
}

# start_ollama SETTING=VALUE...: the newest of them, at $ollama, with the models
# `smol` and `other` in a store of its own, $lab/models; ollama ARGUMENTS speaks to it.
start_ollama() {
	need curl
	real_parts
	local port program
	port=$(free_port)
	program=$(node -p 'Object.keys(JSON.parse(fs.readFileSync(process.argv[1]))).filter((name) => name.startsWith("ollama-")).sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1)' "$parts/versions.json")
	ollama=http://127.0.0.1:$port
	mkdir -p "$lab/home" "$lab/models/blobs"
	cp -r "$parts/models/manifests" "$lab/models/"
	ln -s "$parts/models/blobs/"* "$lab/models/blobs/"
	start ollama env "HOME=$lab/home" "OLLAMA_HOST=127.0.0.1:$port" "OLLAMA_MODELS=$lab/models" "$@" "$parts/bin/$program" serve
	until_so 60 curl -sf -m 2 "$ollama/api/version"
	# shellcheck disable=SC2034 # scripts print it
	ollama_version="Ollama ${program#ollama-}"
}
ollama() {
	HOME=$lab/home OLLAMA_HOST=$ollama timeout 30 "$parts/bin/ollama-${ollama_version#Ollama }" "$@"
}

# post PATH JSON: to Ollama; prints the reply's body.
post() {
	curl -sS -m 120 "$ollama$1" -d "$2"
}

# post_status PATH JSON: to Ollama; prints the reply's status.
post_status() {
	curl -sS -m 120 -o /dev/null -w '%{http_code}' "$ollama$1" -d "$2"
}

# conclude VERSION GUESS SEEN WRITTEN: prints them; the verdict is whether what
# was seen is what is written down.
conclude() {
	printf 'version: %s\nguess:   %s\nseen:    %s\n' "$1" "$2" "$3"
	verdict=0
	[ "$3" = "$4" ] && return
	printf 'changed: it was: %s\n' "$4"
	verdict=1
}

# start_headscale: on loopback, with the users alice and bob and no nodes;
# headscale ARGUMENTS speaks to it, and $lab/policy.hujson is its policy.
start_headscale() {
	real_parts
	local port
	port=$(free_port)
	# shellcheck disable=SC2034 # scripts print it
	headscale_version="headscale $(version_of headscale)"
	echo '{}' >"$lab/policy.hujson"
	# It does not start without a relay, and nobody asks this one.
	cat >"$lab/derp.yaml" <<-YAML
		regions: {900: {regionid: 900, regioncode: lab, regionname: lab, nodes: [{name: a, regionid: 900, hostname: 127.0.0.1}]}}
	YAML
	cat >"$lab/headscale.yaml" <<-YAML
		server_url: http://127.0.0.1:$port
		listen_addr: 127.0.0.1:$port
		metrics_listen_addr: ""
		grpc_listen_addr: 127.0.0.1:$(free_port)
		noise: {private_key_path: $lab/noise.key}
		prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
		derp: {server: {enabled: false}, urls: [], paths: [$lab/derp.yaml], auto_update_enabled: false}
		disable_check_updates: true
		database: {type: sqlite, sqlite: {path: $lab/headscale.sqlite}}
		policy: {mode: file, path: $lab/policy.hujson}
		dns: {magic_dns: true, base_domain: tail.example, override_local_dns: false, nameservers: {global: []}}
		unix_socket: $lab/headscale.sock
		logtail: {enabled: false}
	YAML
	start headscale "$parts/bin/headscale" -c "$lab/headscale.yaml" serve
	until_so 60 headscale users list
	headscale users create alice --email alice@example.com >/dev/null
	headscale users create bob --email bob@example.com >/dev/null
}
headscale() {
	timeout 30 "$parts/bin/headscale" -c "$lab/headscale.yaml" "$@"
}

# policy_check POLICY: what headscale says of it, without what it says before every error.
policy_check() {
	printf '%s' "$1" >"$lab/asked.hujson"
	{ headscale policy check --file "$lab/asked.hujson" 2>&1 || true; } | paste -sd ' ' | sed 's/^Error: rpc error: code = InvalidArgument desc = //'
}

# register NAME USER: a node of theirs, which no machine stands behind.
register() {
	local id
	id=hskey-authreq-$(node -p 'require("crypto").randomBytes(12).toString("hex")')
	headscale debug create-node --name "$1" --user "$2" --key "$id" >/dev/null
	headscale auth register --user "$2" --auth-id "$id" >/dev/null
}

# nft_both_ways SCRIPT: has it make rules of nft, in a network of its own, and leaves them in
# $lab as `text` and as `json`, and in text.read and json.read whether nft reads each again.
nft_both_ways() {
	local own=(unshare --net)
	[ "$(id -u)" = 0 ] || own=(unshare --map-root-user --net)
	cat >"$lab/both-ways.sh" <<'SH'
set -e
. "./$1"
nft list ruleset 2>/dev/null >text
nft -j list ruleset 2>/dev/null >json
for form in text json; do
	nft flush ruleset
	option=
	[ "$form" = text ] || option=-j
	if nft $option -f "$form" 2>/dev/null; then echo "read again"; else echo refused; fi >"$form.read"
done
SH
	(cd "$lab" && "${own[@]}" bash both-ways.sh "$1")
}
