import { execFile } from "node:child_process";
import { chmod, cp, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import {
	commandsUpToStart,
	commandsWith,
	replaceSudo,
	runContainersUnit,
	shownKey,
} from "../../support/composeFiles.ts";
import { pristineDebianRoot } from "../../support/debianRoot.ts";
import {
	type DockerEngine,
	startDockerEngine,
} from "../../support/dockerEngine.ts";
import { ask, becomes } from "../../support/namespaces.ts";
import { importPublishedImages } from "../../support/publishedImages.ts";
import { temporaryFolder } from "../../support/temporaryFolder.ts";
import { realParts } from "../parts.ts";
import { startTailnet, type Tailnet, until } from "./tailnet.ts";

// docker/compose.two-gates.yaml in a real tailnet, by Debian's Docker.

const file = "docker/compose.two-gates.yaml";

t.test(
	"two gates in containers are reached by their names' addresses, also after their Tailscale, and the machine, have ended",
	async (t) => {
		const tailnet = await startTailnet(t);
		const engine = await startDockerEngine(t);
		await importPublishedImages(t, engine);
		await importTailscale(t, engine, tailnet);
		await replaceSudo(engine);
		await tailnet.plug(engine.network);

		const upArguments = tailnet.upArguments("", "tag:gpu");
		const authKey = upArguments[upArguments.indexOf("--auth-key") + 1];
		const key = shownKey(
			await engine.type(await commandsUpToStart(file, authKey)),
		);
		const laptop = await tailnet.device("laptop", { owner: "tag:client" });
		const addressOf = async (name: string) => {
			const nodes = await tailnet.nodes();
			return nodes.find((node) => node.name === name)?.ip_addresses[0];
		};
		const gates: string[] = [];
		for (const name of ["llamagate-one", "llamagate-other"]) {
			await until(
				async () => (await addressOf(name)) !== undefined,
				() => `there is no ${name} in the tailnet`,
			);
			gates.push(`${await addressOf(name)}:11434`);
		}
		const serves = async (message: string) => {
			for (const gate of gates)
				await becomes(
					t,
					async () => (await ask(laptop.network, gate, { key })).status,
					200,
					`${gate} ${message}`,
				);
		};
		await serves("with the key that was printed");
		for (const gate of gates)
			t.equal((await ask(laptop.network, gate)).status, 401);

		const restarts = () =>
			engine.type(
				"docker inspect --format '{{.RestartCount}} {{.State.Status}}' llamagate-two-gates-tailscale-one-1",
			);
		await engine.type(
			`kill -9 "$(docker inspect --format '{{.State.Pid}}' llamagate-two-gates-tailscale-one-1)"`,
		);
		await becomes(t, restarts, "1 running\n", "Docker starts Tailscale again");
		await serves("with Tailscale started again");

		for (const line of (await commandsWith(file, ".service")).split("\n"))
			if (!line.includes("systemctl")) await engine.type(line);
		await engine.powerCut();
		await tailnet.plug(engine.network);
		await runContainersUnit(engine);
		await serves("after a power cut");
	},
);

/** What its own image does, with this tailnet's control server. */
const containerboot = `#!/bin/sh
set -eu
tailscaled --statedir="$TS_STATE_DIR" --socket=/tmp/tailscaled.sock --no-logs-no-support &
until tailscale --socket=/tmp/tailscaled.sock status --json >/tmp/status; do sleep 0.1; done
tailscale --socket=/tmp/tailscaled.sock up $TS_EXTRA_ARGS --accept-dns=false \\
	--hostname="$TS_HOSTNAME" --auth-key="$TS_AUTHKEY"
wait
`;

/** Replaces what stands for Tailscale's image by a Debian with the real tailscaled. */
async function importTailscale(
	t: Parameters<typeof temporaryFolder>[0],
	engine: DockerEngine,
	tailnet: Tailnet,
): Promise<void> {
	const folder = await temporaryFolder(t);
	// Its libraries, ip, and what tailscaled changes the packet filter by.
	const left = ["./var", "./usr/share", "./boot", "./dev", "./proc", "./sys"];
	await promisify(execFile)("sh", [
		"-euc",
		'from=$1 to=$2; shift 2; tar -C "$from" "$@" -cf - . | tar -C "$to" -xpf -',
		...["sh", await pristineDebianRoot(), folder],
		...[...left, "./run", "./usr/lib/python3*"].map(
			(part) => `--exclude=${part}`,
		),
	]);
	for (const part of ["var/lib", "tmp", "run"])
		await mkdir(path.join(folder, part), { recursive: true });
	const local = path.join(folder, "usr/local/bin");
	for (const name of ["tailscale", "tailscaled"])
		await cp(realParts().program(name), path.join(local, name));
	await writeFile(path.join(local, "containerboot"), containerboot);
	await chmod(path.join(local, "containerboot"), 0o755);
	await cp(tailnet.certificate, path.join(folder, "certificate.pem"));
	const server = tailnet.upArguments("", "tag:gpu").slice(1, 3).join("=");
	await engine.importImage("tailscale/tailscale:stable", folder, [
		"ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		`ENV SSL_CERT_FILE=/certificate.pem TS_EXTRA_ARGS=${server}`,
		'CMD ["/usr/local/bin/containerboot"]',
	]);
}
