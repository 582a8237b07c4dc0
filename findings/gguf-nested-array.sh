#!/usr/bin/env bash
# A model's GGUF file has its metadata by name; a value may be an array, and an array may be
# of arrays (docs/gguf.md of ggml).
# Guess: the package gguf, which llama.cpp's own converters use, reads [["a", "b"], ["c"]]
# back as it wrote it, as @huggingface/gguf does.
# Seen: the file has it whole, and contents() gives one flat array.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_pypi gguf==0.19.0
from_npm @huggingface/gguf@0.4.6
cat >"$lab/write.py" <<'PY'
import json, gguf
writer = gguf.GGUFWriter("a.gguf", "llama")
writer.add_array("a.pairs", [["a", "b"], ["c"]])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
print("gguf: " + json.dumps(gguf.GGUFReader("a.gguf").fields["a.pairs"].contents(), separators=(",", ":")))
PY
cat >"$lab/read.mjs" <<'JS'
import { gguf } from "@huggingface/gguf";
const { metadata } = await gguf("a.gguf", { allowLocalFile: true });
console.log(`@huggingface/gguf: ${JSON.stringify(metadata["a.pairs"])}`);
JS
cd "$lab"
seen="$(venv/bin/python write.py); $(node read.mjs)"

conclude 'gguf 0.19.0 (PyPI), @huggingface/gguf 0.4.6' 'both: [["a","b"],["c"]]' "$seen" \
	'gguf: ["a","b","c"]; @huggingface/gguf: [["a","b"],["c"]]'
