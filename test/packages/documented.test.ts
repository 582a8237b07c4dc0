import { cp, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { builtPackages, debianPackage } from "../support/builtPackages.ts";
import { commandsBelow } from "../support/documentedCommands.ts";
import { addresses, type Namespace } from "../support/namespaces.ts";
import { installSshKey } from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

/** Runs a line that a page prints, where a person would: at a shell of the host, in the checkout. */
function typeAt(host: BootedHost, line: string): Promise<string> {
	return host.sh(`cd /root/llamagate\n${line} </dev/null`);
}

/** The same where the program asks, at a terminal; the answer is yes. */
function sayYesAt(host: BootedHost, line: string): Promise<string> {
	return host.must(
		...[
			"sh",
			"-euc",
			'cd /root/llamagate; echo y | script -qec "$1" /dev/null',
		],
		...["sh", line],
	);
}

/** Runs a line on another device, with what stands for this server and key in it. */
async function typeElsewhere(
	peer: Namespace,
	line: string,
	key: string,
): Promise<string> {
	const { code, stdout, stderr } = await peer.run(
		...["sh", "-euc"],
		line
			.replaceAll(/(?<!\$)SERVER:/g, `${addresses.server.v4}:`)
			.replaceAll("your-server-name", addresses.server.v4)
			.replaceAll("lg_…", key),
	);
	if (code !== 0) throw new Error(`${line}: ${code}\n${stdout}${stderr}`);
	return stdout;
}

t.test(
	"README's and install.md's commands work as they are written, one after the other",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "none", ollama: "everywhere" });
		await host.plugPublic();
		const peer = await host.plugTailnet();
		await replayTailscaledRules(host);
		await installSshKey(host);
		// Who is root already needs nothing of it.
		await host.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', 0o755);
		// As the first line leaves them. It was run elsewhere, as it asks npm's registry.
		const file = await debianPackage();
		const packages = path.join(host.root, "root/llamagate/packages");
		await mkdir(packages, { recursive: true });
		await cp(file, path.join(packages, path.basename(file)));

		const [make, install = "", setup = "", refused = "", listed = "", ...more] =
			await commandsBelow("README.md", "Five minutes to a locked host");
		t.equal(make, "npm ci && npm run package:deb");
		t.strictSame(
			(await commandsBelow("docs/install.md", "The short way")).slice(0, 3),
			[make, install, "sudo llamagate setup"],
			"both pages begin alike",
		);
		const log = await readFile(`${await builtPackages()}.log`, "utf8");
		t.match(
			log,
			/\nNext: sudo apt install \/\S+\/llamagate_\S+_(amd64|arm64)\.deb\n$/,
			"the next command is the last that making them says",
		);

		await typeAt(host, install);
		const said = await sayYesAt(host, setup);
		const [key = ""] = /lg_[0-9a-f]{64}/.exec(said) ?? [];
		t.match(key, /^lg_/, said.slice(-2_000));
		t.match(await typeElsewhere(peer, refused, key), "a key is needed");
		t.match(await typeElsewhere(peer, listed, key), '"models":[');
		for (const line of more) await typeAt(host, line);

		const [variable = "", , ...curls] = (
			await commandsBelow("docs/install.md", "The short way")
		).slice(3);
		t.match(variable, /^SERVER=/);
		for (const [index, curl] of curls.entries())
			t.match(
				await typeElsewhere(peer, `${variable}\nKEY=${key}\n${curl}`, key),
				["a key is needed", '"models":[', '"done":true'][index] ?? "",
				curl,
			);

		await host.sh("cd /root/llamagate; openssl rand -hex 32 >ci.key");
		for (const line of await commandsBelow("README.md", "Keys"))
			t.ok(await host.sh(`cd /root/llamagate\n{ ${line}\n} 2>&1`), line);
		// It goes on until Ctrl-C.
		for (const line of await commandsBelow("README.md", "Logs and counters"))
			if (!line.includes("--follow")) t.ok(await typeAt(host, line), line);
	},
);
