import { run } from "./program.ts";

/**
 * The help texts of all commands as a page of the manual.
 *
 * @param program bin/llamagate.js of what is packed
 */
export function manPage(program: string, version: string, time: Date): string {
	const help = (...args: string[]) =>
		run(process.execPath, [program, ...args, "--help"]);
	const commands = [...help().matchAll(/^ {2}(\S+) +\S/gm)].map(
		([, name = ""]) => name,
	);
	return [
		`.TH LLAMAGATE 8 ${time.toJSON().slice(0, 10)} "llamagate ${version}"\n`,
		".SH NAME\nllamagate \\- authenticating streaming gate in front of Ollama\n",
		`.SH DESCRIPTION\n${verbatim(help())}`,
		...commands.map(
			(name) => `.SH ${name.toUpperCase()}\n${verbatim(help(name))}`,
		),
	].join("");
}

function verbatim(text: string): string {
	const escaped = text
		.trim()
		.replaceAll("\\", "\\e")
		.replaceAll("-", "\\-")
		.replace(/^(?=[.'])/gm, "\\&");
	return `.nf\n${escaped}\n.fi\n`;
}
