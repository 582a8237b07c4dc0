import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { startLocalApi } from "../localApi.ts";
import { answerCommands } from "./answerCommands.ts";
import {
	commands,
	questions,
	readState,
	statusOf,
	whoIsOf,
} from "./tailscaleState.ts";

/**
 * What a host that is booted for a test has as `tailscaled`: LocalAPI, as far
 * as whois, status and certificates go, the port that other devices send to, and
 * what `tailscale` asks most. The interface is plugged in by the test.
 */
process.title = "tailscaled";
const folder = "/run/tailscale";
const socket = `${folder}/tailscaled.sock`;
mkdirSync(folder, { recursive: true, mode: 0o755 });
// Made anew at each start, as tailscaled does it (safesocket/unixsocket.go).
rmSync(socket, { force: true });
createSocket("udp4").bind(41641);
createSocket({ type: "udp6", ipv6Only: true }).bind(41641);
const api = await startLocalApi({ teardown: () => {} }, socket);
chmodSync(socket, 0o666);
// The state may have changed since the last call.
api.misbehave = () => {
	const state = readState();
	api.status = statusOf(state);
	api.nodes.clear();
	for (const [address, whoIs] of whoIsOf(state)) api.nodes.set(address, whoIs);
	// Whoever asks: the environment says whether the gate's user would be let.
	for (const [name, pem] of Object.entries(state.certs ?? {}))
		api.certs.set(
			name,
			process.env.TS_PERMIT_CERT_UID === "llamagate"
				? pem
				: { status: 403, text: "cert access denied" },
		);
	return undefined;
};
// For root alone, as no such socket is there in reality; others' commands answer themselves.
const answers = new Map(Object.entries(questions));
await answerCommands(commands, async ({ args }) => {
	const print = answers.get(args.join(" "));
	return print && { code: 0, stdout: print(readState()), stderr: "" };
});
execFileSync("systemd-notify", ["--ready"]);
console.log(`LocalAPI answers on ${socket}`);
