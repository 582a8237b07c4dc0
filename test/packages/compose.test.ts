import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { formatUpstream } from "../../src/config/upstreams.ts";
import { requireTool } from "../support/tools.ts";

const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");

interface Service {
	readonly image: string;
	readonly build?: string;
	readonly network_mode?: string;
	readonly environment?: Record<string, string>;
	readonly volumes?: string[];
	readonly tmpfs?: string[];
	readonly secrets?: string[];
	readonly depends_on?: Record<string, unknown>;
	readonly [key: string]: unknown;
}

interface Composition {
	readonly services: Record<string, Service>;
	readonly volumes?: Record<string, unknown>;
	readonly networks?: Record<string, unknown>;
	readonly secrets?: Record<string, { file: string }>;
}

/** There is no Compose where these tests run: this is another reader of YAML. */
async function read(name: string): Promise<Composition> {
	const { stdout } = await execute("python3", [
		"-c",
		"import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))",
		path.join(root, "docker", name),
	]);
	return JSON.parse(stdout) as Composition;
}

function hasYaml(t: Parameters<typeof requireTool>[0]): boolean {
	return requireTool(t, "python3");
}

for (const name of ["compose.yaml", "compose.sidecar.yaml"]) {
	t.test(`in docker/${name} the gate has as little as it needs`, async (t) => {
		if (!hasYaml(t)) return;
		const gate = (await read(name)).services.llamagate;
		t.match(gate, {
			build: "..",
			read_only: true,
			cap_drop: ["ALL"],
			security_opt: ["no-new-privileges:true"],
			tmpfs: ["/run/llamagate:mode=1777"],
			restart: "unless-stopped",
		});
		t.notOk(gate?.privileged ?? gate?.cap_add ?? gate?.user ?? gate?.command);
		t.strictSame(
			gate?.volumes?.map((volume) => volume.split(":").slice(1)),
			[["/etc/llamagate", "ro"]],
		);
		t.notOk(gate?.healthcheck, "the image has one");

		// Docker kills after that time, whatever streams are left.
		const { drainTimeoutMs } = parseConfig("{}", "defaults");
		const graceSeconds = /^(\d+)s$/.exec(String(gate?.stop_grace_period))?.[1];
		t.ok(Number(graceSeconds) * 1_000 > drainTimeoutMs);
	});

	t.test(
		`docker/${name} publishes nothing, and all that it names is there`,
		async (t) => {
			if (!hasYaml(t)) return;
			const { services, volumes, secrets } = await read(name);
			for (const [own, service] of Object.entries(services)) {
				for (const key of ["ports", "expose", "networks", "links"])
					t.notOk(key in service, `${own} has no ${key}`);
				const [kind, other] = service.network_mode?.split(":") ?? [];
				if (kind === "service") {
					t.ok(other !== undefined && other in services, `${own}: ${other}`);
					t.notOk("hostname" in service, "the network's owner has the name");
				}
				for (const dependence of Object.keys(service.depends_on ?? {}))
					t.ok(dependence in services, dependence);
				for (const secret of service.secrets ?? [])
					t.ok(secret in (secrets ?? {}), secret);
				for (const [source = ""] of service.volumes?.map((volume) =>
					volume.split(":"),
				) ?? [])
					t.ok(/^[./]/.test(source) || source in (volumes ?? {}), source);
			}
		},
	);
}

t.test(
	"with Tailscale in a container, Ollama is on the loopback that only the gate shares",
	async (t) => {
		if (!hasYaml(t)) return;
		const { services, secrets } = await read("compose.sidecar.yaml");
		const { network, tailscale, ollama, llamagate } = services;
		for (const shares of [tailscale, ollama, llamagate])
			t.equal(shares?.network_mode, "service:network");
		// It comes back in the same network, and so nobody loses it.
		t.match(network, {
			image: tailscale?.image,
			entrypoint: ["/bin/sleep", "infinity"],
			user: "65532:65532",
			read_only: true,
			cap_drop: ["ALL"],
			restart: "unless-stopped",
		});
		t.equal(
			`http://${ollama?.environment?.OLLAMA_HOST}`,
			formatUpstream(parseConfig("{}", "defaults").upstream.target),
		);
		t.match(tailscale, {
			environment: {
				TS_USERSPACE: "false",
				TS_AUTHKEY: "file:/run/secrets/tailscale_authkey",
				TS_STATE_DIR: "/var/lib/tailscale",
			},
			volumes: ["tailscale:/var/lib/tailscale"],
			devices: ["/dev/net/tun:/dev/net/tun"],
			cap_add: ["NET_ADMIN"],
		});

		// Neither the tailnet's key nor the gate's may end up in a commit or an image.
		const keyFile = secrets?.tailscale_authkey?.file ?? "";
		const secretPaths = [keyFile, "./etc/keys.json"].map((file) =>
			path.join("docker", file),
		);
		await execute("git", ["check-ignore", "--no-index", ...secretPaths], {
			cwd: root,
		});
		const context = await readFile(path.join(root, ".dockerignore"), "utf8");
		t.match(context, /^\*$/m);
		t.notMatch(context, /docker/);
	},
);

t.test(
	"in docker/compose.two-gates.yaml both gates are held as one alone, and share their keys and a Valkey that nobody else reaches",
	async (t) => {
		if (!hasYaml(t)) return;
		const name = "compose.two-gates.yaml";
		const { services, networks, volumes } = await read(name);
		const alone = (await read("compose.sidecar.yaml")).services.llamagate;
		const gates = Object.entries(services).filter(([own]) =>
			own.startsWith("gate-"),
		);
		t.equal(gates.length, 2);
		for (const [own, gate] of gates) {
			const { network_mode = "", command, volumes: mounted } = gate;
			for (const held of [
				...["image", "build", "tmpfs", "read_only", "cap_drop"],
				...["security_opt", "restart", "stop_grace_period"],
			])
				t.strictSame(gate[held], alone?.[held], `${own}: ${held}`);
			t.strictSame(mounted, ["./two-gates/etc:/etc/llamagate:ro"]);
			const owner = network_mode.replace(/^service:/, "");
			t.ok(owner in (gate.depends_on ?? {}), `${own} has ${owner}'s network`);
			t.strictSame(services[owner]?.networks, ["default", "state"]);

			const [, , configFile = ""] = command as string[];
			const file = path.join(
				...[root, "docker/two-gates", path.basename(configFile)],
			);
			const { state, upstream, hosts } = parseConfig(
				await readFile(file, "utf8"),
				configFile,
			);
			t.match(state, {
				target: { kind: "tcp", host: "valkey", tls: false },
				user: "llamagate",
				passwordFile: "/etc/llamagate/valkey.password",
			});
			const ollamas = Object.values(services)
				.filter(
					(one) =>
						one.image === "ollama/ollama" && one.network_mode === network_mode,
				)
				.map(({ environment }) => `http://${environment?.OLLAMA_HOST}`);
			t.strictSame(
				ollamas,
				(hosts ?? [upstream]).map(({ target }) => formatUpstream(target)),
			);
		}

		const { valkey } = services;
		t.strictSame(valkey?.networks, ["state"]);
		t.strictSame(networks?.state, { internal: true });
		t.match(valkey, {
			user: "65532:65532",
			read_only: true,
			cap_drop: ["ALL"],
		});
		t.match(String(valkey?.command), /noeviction,--aclfile,/);
		for (const [own, service] of Object.entries(services)) {
			for (const key of ["ports", "expose", "links"])
				t.notOk(key in service, `${own} has no ${key}`);
			for (const [source = ""] of service.volumes?.map((volume) =>
				volume.split(":"),
			) ?? [])
				t.ok(/^[./]/.test(source) || source in (volumes ?? {}), source);
		}
	},
);

t.test("the two gates' user of Valkey is that of the documents", async (t) => {
	const acl = await readFile(
		path.join(root, "docker/two-gates/users.acl.example"),
		"utf8",
	);
	const [first, user = ""] = acl.trim().split("\n");
	t.equal(first, "user default off");
	t.ok((await readFile("docs/hosts.md", "utf8")).includes(`\n${user}\n`));
	const secret = ["etc/keys.json", "etc/valkey.password", "users.acl"].map(
		(file) => path.join("docker/two-gates", file),
	);
	await execute("git", ["check-ignore", "--no-index", ...secret], {
		cwd: root,
	});
});
