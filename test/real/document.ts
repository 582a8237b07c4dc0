import { writeOrCheck } from "../../src/config/madeFiles.ts";
import { compatibilityEntries } from "./compatibility.ts";
import { parts } from "./parts.ts";
import { type Area, areas } from "./record.ts";

const headings: Readonly<Record<Area, string>> = {
	ollama: "Ollama",
	tailnet: "The tailnet",
	clients: "Clients",
};

const entries = compatibilityEntries();

function renderArea(area: Area): string {
	const rows = entries
		.filter((entry) => entry.area === area)
		.map(
			({ name, version, ran, differs }) =>
				`| ${name} | ${version} | ${ran.join("; ")} | ${differs.length === 0 ? "nothing" : differs.join("<br>")} |`,
		);
	if (rows.length === 0) return "";
	return `
## ${headings[area]}

| what | version | what was run | what differs |
|---|---|---|---|
${rows.join("\n")}
`;
}

writeOrCheck({
	"docs/compatibility.md": `# Compatibility

<!-- Made from docs/compatibility.json by \`npm run docs\`, and that by \`npm run test:real -- --record\`; change it there, not here. -->

What llamagate was run with, each at the version that is named: the real
programs, with a small model on a CPU, in network namespaces of one machine.
\`npm run test:real\` runs all of it and fails when something is no longer as it
is here. What is not in a table was not run.

The programs are ${parts.map(({ name, version }) => `${name.replace(/-[\d.]+$/, "")} ${version}`).join(", ")}.
${areas.map(renderArea).join("")}`,
});
