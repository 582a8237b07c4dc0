import { execFile } from "node:child_process";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { Test } from "tap";
import {
	type BootedHost,
	bootHost,
	type HostOptions,
} from "../../support/bootedHost.ts";
import { becomes } from "../../support/namespaces.ts";
import { realParts } from "../parts.ts";
import type { Owner, Tailnet } from "./tailnet.ts";

const execute = promisify(execFile);

/** A whole Debian with systemd, udev, a real tailscaled and llamagate. */
export interface Server {
	readonly host: BootedHost;
	/** Joins the tailnet, as somebody else if told so. @param options of `tailscale up` */
	join(owner?: Owner, ...options: string[]): Promise<void>;
	/** What its tailscaled is known by since it signed in. */
	nodeKey(): Promise<string>;
	/** Its addresses in the tailnet now: IPv4, IPv6. */
	addresses(): Promise<readonly [string, string]>;
}

/** Boots a server and joins it to a tailnet. It goes with the test. */
export async function bootServer(
	t: Test,
	tailnet: Tailnet,
	options: HostOptions = {},
): Promise<Server> {
	const host = await bootHost(t, {
		...{ llamagate: "installed", tailscale: false, udev: true, tun: true },
		...options,
		async install(root) {
			await installTailscale(root, tailnet.certificate);
			await options.install?.(root);
		},
	});
	await tailnet.plug(host.network);
	const server: Server = {
		host,
		async join(owner = "tag:gpu", ...options) {
			await host.must(
				...["tailscale", ...tailnet.upArguments("server", owner), ...options],
			);
		},
		async nodeKey() {
			const { Self } = JSON.parse(
				await host.must("tailscale", "status", "--json"),
			) as { Self: { PublicKey: string } };
			return Self.PublicKey;
		},
		async addresses() {
			const [v4 = "", v6 = ""] = (await host.must("tailscale", "ip")).split(
				"\n",
			);
			return [v4, v6];
		},
	};
	await becomes(
		t,
		async () => (await host.run("tailscale", "status", "--json")).code,
		0,
		"tailscaled is up",
	);
	await server.join();
	return server;
}

/** As Tailscale's package leaves it, but for the certificate that it has to trust. */
async function installTailscale(
	root: string,
	certificate: string,
): Promise<void> {
	const { program } = realParts();
	await copyFile(program("tailscale"), path.join(root, "usr/bin/tailscale"));
	await copyFile(program("tailscaled"), path.join(root, "usr/sbin/tailscaled"));
	for (const [file, content] of [
		["etc/default/tailscaled", 'PORT="41641"\nFLAGS=""\n'],
		[
			"etc/systemd/system/tailscaled.service.d/test.conf",
			`[Service]
Environment=SSL_CERT_FILE=/etc/ssl/headscale.pem TS_NO_LOGS_NO_SUPPORT=true
`,
		],
		[
			"lib/systemd/system/tailscaled.service",
			`[Unit]
Description=Tailscale node agent
Documentation=https://tailscale.com/docs/
Wants=network-pre.target
After=network-pre.target NetworkManager.service systemd-resolved.service

[Service]
EnvironmentFile=/etc/default/tailscaled
ExecStart=/usr/sbin/tailscaled --state=/var/lib/tailscale/tailscaled.state --socket=/run/tailscale/tailscaled.sock --port=\${PORT} $FLAGS
ExecStopPost=/usr/sbin/tailscaled --cleanup
Restart=on-failure
RuntimeDirectory=tailscale
RuntimeDirectoryMode=0755
StateDirectory=tailscale
StateDirectoryMode=0700
CacheDirectory=tailscale
CacheDirectoryMode=0750
Type=notify

[Install]
WantedBy=multi-user.target
`,
		],
	] as const) {
		const target = path.join(root, file);
		await mkdir(path.dirname(target), { recursive: true });
		await writeFile(target, content);
	}
	await copyFile(certificate, path.join(root, "etc/ssl/headscale.pem"));
	await execute("systemctl", [
		...[`--root=${root}`, "--quiet", "enable", "tailscaled.service"],
	]);
}
