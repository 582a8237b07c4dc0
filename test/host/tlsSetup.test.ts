import path from "node:path";
import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { makeAuthority, ownName } from "../support/certificates.ts";
import {
	readState,
	stateFile,
	writeState,
} from "../support/hostStandIns/tailscaleState.ts";
import { ask, becomes, gateV4 } from "../support/namespaces.ts";
import { fingerprint, runSetup } from "../support/setupHost.ts";

t.test(
	"setup --tls has the gate speak HTTPS, and undo makes it as it was",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		const state = path.join(host.root, stateFile);
		const authority = await makeAuthority(t);
		const { key, cert } = await authority.issue();
		writeState(
			{ ...readState(state), certs: { [ownName]: key + cert } },
			state,
		);
		const early = await runSetup(host, "--yes", "--tls", "tailscale");
		t.equal(early.code, 1);
		t.match(early.report.steps, [
			{ id: "tls", state: "unsafe", says: /run first: sudo llamagate setup/ },
		]);
		const made = await runSetup(host, "--yes", "--only", "account,gate");
		t.equal(made.code, 0, made.stdout);
		const before = await fingerprint(host);

		const other = readState(state);
		const prefs = { ...other.prefs, ControlURL: "https://head.example" };
		writeState({ ...other, prefs }, state);
		const headscale = await runSetup(host, "--yes", "--tls", "tailscale");
		t.equal(headscale.code, 1);
		t.match(headscale.report.steps[0]?.says, "Headscale has none");
		t.equal(await fingerprint(host), before, "nothing is changed");
		writeState(other, state);

		const { code, report, stdout } = await runSetup(
			host,
			...["--yes", "--tls", "tailscale"],
		);
		t.equal(code, 0, stdout);
		t.match(report.steps, [
			{
				...{ id: "tls", state: "changed" },
				proofs: [{ ok: true, says: new RegExp(`speaks HTTPS as ${ownName},`) }],
			},
		]);
		const peer = await host.plugTailnet();
		const { key: first = "" } = made.report;
		const status = async (key?: string) =>
			(await ask(peer, gateV4, { authority, ...(key && { key }) })).status;
		await becomes(t, () => status(first), 200, "another device by HTTPS");
		t.equal(await status(), 401, "nobody without a key");

		const again = await runSetup(host, "--yes", "--tls", "tailscale");
		t.match(again.report.steps, [{ state: "done" }]);

		const off = await runSetup(host, "--yes", "--tls", "off");
		t.equal(off.code, 0, off.stdout);
		t.match(off.report.steps[0]?.proofs, [
			{ ok: true, says: "the running gate speaks plain HTTP" },
		]);
		t.notMatch(
			await host.must("systemctl", "show", "tailscaled", "-p", "Environment"),
			"TS_PERMIT_CERT_UID",
		);

		const undone = await host.run("llamagate", "setup", "--undo", "--yes");
		t.equal(undone.code, 0, undone.stdout + undone.stderr);
		t.notMatch(await host.must("cat", "/etc/llamagate/config.json"), "tls");
		t.notMatch(await fingerprint(host), "zz-llamagate");
	},
);
