#!/usr/bin/env bash
# A table of nft with `flags owner` belongs to the program that made it, for as long as
# that runs. `flush ruleset` passes over such tables of others. `flush ruleset` and then
# all that `nft list ruleset` prints is how a host's rules are saved and restored.
# Guess: what is saved while a program has such a table is restored beside it; the flag
# says of whom the table is now, and is not saved, or the table is passed over.
# Seen: the flag is saved with the table, and nft refuses the whole file as long as the
# program runs, also what has to do with none of its tables. Once it has ended the file
# is taken, and the table in it goes again with the nft that read it.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need nft unshare
own=(unshare --net)
[ "$(id -u)" = 0 ] || own=(unshare --map-root-user --net)
cat >"$lab/run.sh" <<'SH'
set -e
nft 'add table inet mine; add chain inet mine input'
mkfifo commands
nft --interactive <commands >/dev/null 2>&1 &
exec 3>commands
echo 'add table inet theirs { flags owner; }' >&3
until nft list tables | grep -q theirs; do sleep 0.1; done
{ echo 'flush ruleset'; nft list ruleset; } >saved
said=$(nft -f saved 2>&1) && while_held=restored || while_held="refused ($(sed -nE 's/^saved:[0-9:-]+: Error: //p' <<<"$said" | paste -sd ';'))"
nft flush ruleset
after_flush=$(nft list tables | sort | paste -sd ,)
exec 3>&-
wait
nft -f saved && later=restored || later=refused
echo "flags in the file: $(grep -c 'flags owner' saved); while it runs: $while_held; left by a flush: $after_flush; once it has ended: $later, with $(nft list tables | sort | paste -sd ,)"
SH
seen=$(cd "$lab" && timeout 60 "${own[@]}" bash run.sh)

conclude "$(nft --version | cut -d ' ' -f 1,2)" \
	'restored beside the table of the program that runs, and without it afterwards' "$seen" \
	'flags in the file: 1; while it runs: refused (Could not process rule: Operation not permitted); left by a flush: table inet theirs; once it has ended: restored, with table inet mine'
