import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { copyFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { judgeDialers } from "../../src/host/ollama/listening.ts";
import {
	describeDialer,
	type LoopbackDialer,
	loopbackDialers,
} from "../../src/host/tailscale/userspace.ts";
import {
	type LocalApi,
	loggedOutStatus,
	runningStatus,
	startLocalApi,
} from "../support/localApi.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

t.test("a program named tailscaled", async (t) => {
	const folder = await temporaryFolder(t);
	const program = path.join(folder, "tailscaled");
	await copyFile(process.execPath, program, constants.COPYFILE_FICLONE);
	/** One whose LocalAPI is this, as a second tailscaled has a socket of its own. @returns what is found of it */
	const lookAt = async (
		t: Test,
		...options: readonly string[]
	): Promise<LoopbackDialer | undefined> => {
		const child = spawn(program, [
			...["-e", "console.log('up'); setInterval(() => {}, 1e9)"],
			...["--", ...options],
		]);
		t.teardown(() => child.kill());
		await new Promise((resolve) => child.stdout.once("data", resolve));
		const { dialers } = await loopbackDialers();
		return dialers.find(({ pid }) => pid === child.pid);
	};
	const api = async (t: Test): Promise<LocalApi> => startLocalApi(t);

	t.test("with a tunnel device dials nothing", async (t) => {
		const { socket } = await api(t);
		t.equal(await lookAt(t, `--socket=${socket}`), undefined);
	});

	t.test("without one dials loopback for its peers", async (t) => {
		const local = await api(t);
		local.status = { ...runningStatus(), TUN: false };
		for (const options of [
			[`--socket=${local.socket}`],
			["-socket", local.socket],
			["--tun=userspace-networking", "--socket", local.socket],
		])
			t.match(
				await lookAt(t, ...options),
				{ isElsewhere: false, state: "Running" },
				options.join(" "),
			);
	});

	t.test("logged out is told to do so once it is up", async (t) => {
		const local = await api(t);
		local.status = { ...loggedOutStatus(), TUN: false };
		const found = await lookAt(t, `--socket=${local.socket}`);
		t.match(found && describeDialer(found), /as soon as it is up.*NeedsLogin/);
	});

	t.test("that says nothing counts by its open files", async (t) => {
		const local = await api(t);
		local.misbehave = () => "no-backend";
		t.match(await lookAt(t, `--socket=${local.socket}`), { state: undefined });
		t.match(await lookAt(t, "--socket=/nowhere"), { state: undefined });
	});
});

t.test("what its peers get to", async (t) => {
	const dialer = (state: string | undefined): LoopbackDialer => ({
		...{ pid: 7, network: "net:[1]", isElsewhere: false },
		...{ name: "tailscaled (process 7)", state },
	});
	t.equal(judgeDialers([], [], []), undefined);
	for (const state of ["Running", undefined]) {
		const found = judgeDialers([dialer(state)], [11434], []);
		t.equal(found?.state, "finding");
		t.equal(found?.severity, "critical");
		t.match(found?.evidence[0], /without a key.*127\.0\.0\.1:11434/);
		t.match(found?.fix, /--tun=userspace-networking/);
	}
	t.equal(
		judgeDialers([dialer("NeedsLogin")], [11434], [])?.severity,
		"high",
		"nobody yet",
	);
	t.equal(
		judgeDialers([dialer("Running")], [], [])?.severity,
		"high",
		"Ollama elsewhere, or not running",
	);
	t.equal(
		judgeDialers([], [], ["process 9 is an Ollama in a network of its own"])
			?.severity,
		"critical",
		"beside an Ollama in a container",
	);
});
