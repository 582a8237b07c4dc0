#!/usr/bin/env bash
# Ollama lists its models in OpenAI's form under GET /v1/models, and OpenAI's
# client asks for one of them by its id.
# Guess: an id from the list can be asked for, so models.retrieve(id) finds it.
# Seen: a model of a user (user/name, as all models that people publish) is in the
# list, and cannot be asked for: the client writes the slash as %2F, Ollama's router
# decodes that before it looks for a route, and answers "404 page not found".
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_npm openai@7.59.0
[ "$(post_status /api/copy '{"source":"smol","destination":"someone/smol"}')" = 200 ]

cat >"$lab/ask.mjs" <<'JS'
import OpenAI from "openai";
const client = new OpenAI({ apiKey: "none", baseURL: `${process.argv[2]}/v1` });
const ids = (await client.models.list()).data.map(({ id }) => id);
for (const id of ["smol:latest", "someone/smol:latest"]) {
	const found = await client.models.retrieve(id).then(
		(model) => `retrieved`,
		(error) => `${error.status}`,
	);
	console.log(`${id} ${ids.includes(id) ? "listed" : "not listed"}, ${found}`);
}
JS
seen=$(timeout 60 node "$lab/ask.mjs" "$ollama" | paste -sd ';' | sed 's/;/; /g')

conclude "$ollama_version, openai 7.59.0 (npm)" \
	'both are listed and retrieved' \
	"$seen" \
	'smol:latest listed, retrieved; someone/smol:latest listed, 404'
