#!/usr/bin/env bash
# Programs in Go read and write systemd's units by go-systemd's package unit. A line of a unit
# may be continued, and comments between its parts are passed over (systemd.syntax(7)).
# Guess: Deserialize reads such a line as systemd does.
# Seen: systemd takes the unit without a word; Deserialize takes the comment for the value's
# end, and fails at the rest.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need systemd-analyze
from_go github.com/coreos/go-systemd/v22/unit@v22.7.0
cat >"$lab/a.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/echo one \
# what follows is the second word
	two
UNIT
cat >"$lab/main.go" <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/unit"
)

func main() {
	file, _ := os.Open("a.service")
	options, err := unit.DeserializeOptions(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", options[len(options)-1].Value)
}
GO
cd "$lab"
seen="systemd: $(systemd-analyze verify ./a.service 2>&1 && echo taken); go-systemd: $(timeout 200 go run . 2>&1)"

conclude 'go-systemd 22.7.0' 'both take it' "$seen" \
	'systemd: taken; go-systemd: unexpected newline encountered while parsing option name'
