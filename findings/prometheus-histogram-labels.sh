#!/usr/bin/env bash
# parse-prometheus-text-format reads what a server's /metrics says, as objects with
# `labels`, and of a histogram `buckets`, `sum` and `count`.
# Guess: of a histogram with a label each value of the label is a metric, as of a gauge.
# Seen: it is one metric without labels and with the last one's buckets; sums and counts
# are gone. Without a label all is there.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm parse-prometheus-text-format@1.1.1
cat >"$lab/read.js" <<'JS'
const read = require("parse-prometheus-text-format");
const series = (label) => (count) => [
	`wait_bucket{${label(count)}le="1"} ${count}`,
	`wait_bucket{${label(count)}le="+Inf"} ${count + 1}`,
	`wait_sum{${label(count)}} 9`,
	`wait_count{${label(count)}} ${count + 1}`,
];
const text = (lines) => `# HELP wait Seconds.\n# TYPE wait histogram\n${lines.join("\n").replaceAll(",}", "}").replaceAll("{}", "")}\n`;
const metrics = (lines) => JSON.stringify(read(text(lines))[0].metrics).replaceAll('"', "");
console.log(`without: ${metrics([1].flatMap(series(() => "")))}; by label: ${metrics([1, 5].flatMap(series((count) => `host="h${count}",`)))}`);
JS
seen=$(node "$lab/read.js")

conclude 'parse-prometheus-text-format 1.1.1' 'by label: two metrics with labels, buckets, sum and count' "$seen" \
	'without: [{buckets:{1:1,+Inf:2},count:2,sum:9}]; by label: [{buckets:{1:5,+Inf:6}}]'
