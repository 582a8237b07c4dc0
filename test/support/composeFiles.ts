import type { DockerEngine } from "./dockerEngine.ts";
import { commandsInComment } from "./documentedCommands.ts";

/** The key that `keys add` has printed. */
export function shownKey(said: string): string {
	const [key] = /lg_[0-9a-f]{64}/.exec(said) ?? [];
	if (key === undefined) throw new Error(`no key was printed: ${said}`);
	return key;
}

/** Who is root already needs nothing of sudo. */
export async function replaceSudo(engine: DockerEngine): Promise<void> {
	await engine.type(`
		printf '#!/bin/sh\\nexec "$@"\\n' >/usr/local/bin/sudo
		chmod 755 /usr/local/bin/sudo
		mkdir -p /etc/systemd/system`);
}

/** Does what systemd does once Docker is up, where docker/llamagate-containers.service is installed. */
export async function runContainersUnit(engine: DockerEngine): Promise<void> {
	await engine.type(`
		unit=/etc/systemd/system/llamagate-containers.service
		cd "$(sed -n 's/^WorkingDirectory=//p' $unit)"
		$(sed -n 's/^ExecStart=//p' $unit)`);
}

/** The commands of a file up to the one that starts it, as a reader types them into one shell. */
export async function commandsUpToStart(
	file: string,
	authKey = "tskey-auth-k1-2",
): Promise<string> {
	const lines = await commandsInComment(file);
	const start = lines.findIndex((line) => / up -d$| run -d /.test(line));
	return lines
		.slice(0, start + 1)
		.map((line) =>
			// What the reader pastes.
			line.includes("tailscale.authkey") ? `echo ${authKey} | ${line}` : line,
		)
		.join("\n");
}

/** The commands of a file that have a word in them. */
export async function commandsWith(
	file: string,
	word: string,
): Promise<string> {
	const lines = await commandsInComment(file);
	return lines.filter((line) => line.includes(word)).join("\n");
}

/** What is there of a Compose file's services, each with its state. */
export async function servicesOf(engine: DockerEngine, file: string) {
	const said = await engine.type(
		`docker compose -f ${file} ps --all --format '{{.Service}} {{.State}}{{.Ports}}'`,
	);
	return said.trim().split("\n").sort();
}
