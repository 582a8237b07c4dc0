import { writeOrCheck } from "../../src/config/madeFiles.ts";
import {
	configSchema,
	defaultsOf,
	isSection,
	type SchemaNode,
} from "../../src/config/schema.ts";
import {
	comparedOllama,
	refusedPaths,
	routes,
} from "../../src/ollama/routes.ts";
import { checks } from "../../src/probe/checks.ts";
import { renderDoctor } from "./doctor.ts";

/**
 * Writes the files that are made from the code, or with `--check` says which
 * of them no longer agree with it: `npm run docs`.
 */

const made =
	"<!-- Made from src/ by `npm run docs`; change it there, not here. -->";

function renderConfiguration(): string {
	const rows: string[] = [];
	const table = [
		"| setting | default | expected | meaning |",
		"|---|---|---|---|",
	];
	const visit = (node: SchemaNode, path: string) => {
		const children = Object.entries(node.properties ?? {});
		const at = (name: string) => (path === "" ? name : `${path}.${name}`);
		const leaves = children.filter(([, child]) => !isSection(child));
		if (leaves.length > 0) rows.push("", ...table);
		for (const [name, child] of leaves) rows.push(renderRow(at(name), child));
		for (const [name, child] of children) {
			if (!isSection(child)) continue;
			rows.push("", `## ${at(name)}`, "", child.description ?? "");
			visit(child, at(name));
		}
	};
	rows.push("## At the top");
	visit(configSchema, "");
	return `# Configuration

${made}

One JSON file, by default \`/etc/llamagate/config.json\`, in which comments
(\`//\` and \`/* */\`) and trailing commas may stand. Nobody but its owner may be
able to write it. ${configSchema.description}
Relative paths start at the file's own folder (\`ledger.file\` under the shipped
unit at the ledger's, /var/lib/llamagate-ledger). Durations are a whole number and \`ms\`, \`s\`, \`m\`, \`h\` or \`d\`; sizes a whole
number and \`B\`, \`KiB\`, \`MiB\`, \`GiB\` or \`TiB\`. The file is checked whole at the
start and at every reload: a mistake is reported with its line, and a file with
one is not used at all. \`llamagate check\` does the same without starting. While
a file is broken, a running gate goes on with its old settings; \`keys list\`,
\`keys rotate\`, \`keys revoke\` and \`status\` work all the same, and say so.

[config.schema.json](config.schema.json) is the JSON Schema for editors, and
[config.example.json](../config.example.json) has every setting that is
in force by default, with that value.

${rows.join("\n")}
`;
}

function renderRow(at: string, node: SchemaNode): string {
	const fallback =
		node.default === undefined ? "" : `\`${JSON.stringify(node.default)}\``;
	const cells = [
		`\`${at}\``,
		fallback,
		node["x-expected"] ?? "",
		node.description ?? "",
	];
	return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function renderRoutes(): string {
	const rows = routes.map(
		({ method, path, scope, body, family }) =>
			`| ${method} | \`${path}\` | ${scope} | ${body} | ${family} |`,
	);
	return `# Routes

${made}

Every call that the gate passes on, and the scope that a key needs for it. What
is not in this table never reaches Ollama. \`none\` takes no body, \`small\` one of
up to 1 MiB, \`inference\` one of up to \`limits.body\`, \`blob\` one of any size.
A body with \`Content-Encoding: zstd\` is taken where Ollama unpacks it, which is
${routes
	.filter(({ unpacksZstd }) => unpacksZstd)
	.map(({ path }) => `\`${path}\``)
	.join(", ")}.

Without a key every method and path is answered 401, so that nobody learns which
there are; with one, 404 for a path that is not here and 405 for another method.
One exception says nothing of paths: a method that Node's HTTP parser does not
know (\`curl -X FOO\`) is answered 400 before anything else of the request is read,
with a key and without.

The table was compared with Ollama ${comparedOllama}. \`npm run routes -- VERSION\`
compares it with another, out of that version's Go module.

| method | path | scope | body | errors |
|---|---|---|---|---|
${rows.join("\n")}

## Refused by name

No scope opens these.

${refusedPaths.map(({ path, why }) => `- \`${path}\`: ${why}.`).join("\n")}
`;
}

function renderProbeChecks(): string {
	const rows = Object.values(checks).map(
		({ id, severity, title, why }) =>
			`| \`${id}\` | ${severity} | ${title} | ${why} |`,
	);
	return `# The checks of llamagate probe

${made}

In the order of the report. The severity is that of a finding. [probe.md](probe.md)
says how they are made.

| id | severity | what should be so | why it matters |
|---|---|---|---|
${rows.join("\n")}
`;
}

const files: Readonly<Record<string, string>> = {
	"docs/configuration.md": renderConfiguration(),
	"docs/routes.md": renderRoutes(),
	"docs/probe-checks.md": renderProbeChecks(),
	"docs/doctor.md": renderDoctor(made),
	"docs/config.schema.json": `${JSON.stringify(configSchema, undefined, 2)}\n`,
	"config.example.json": `${JSON.stringify(defaultsOf(configSchema), undefined, 2)}\n`,
};

writeOrCheck(files);
