import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";

/** What the stand-in for Docker's engine knows. Tests may read it; it outlives a reboot. */
export interface DockerState {
	containers: Container[];
	images: Image[];
	/** By name; they outlive their containers. */
	volumes: Volume[];
}

/** GET /volumes/{name}, likewise. */
export interface Volume {
	Name: string;
	Driver: "local";
	Mountpoint: string;
	Scope: "local";
}

type Json = Record<string, unknown>;

export interface PortBinding {
	HostIp: string;
	HostPort: string;
}

/** GET /containers/{id}/json of Docker's Engine API, as far as somebody looks at it. */
export interface Container extends Json {
	Id: string;
	Created: string;
	Name: string;
	Image: string;
	State: Json & { Status: string; Running: boolean };
	HostConfig: Json & {
		Binds: string[] | null;
		NetworkMode: string;
		PortBindings: Record<string, PortBinding[]>;
		RestartPolicy: { Name: string; MaximumRetryCount: number };
	};
	Config: Json & { Image: string; Env: string[]; Labels: Json };
	NetworkSettings: Json & { Ports: Record<string, PortBinding[] | null> };
}

/** GET /images/{name}/json, likewise. */
export interface Image extends Json {
	Id: string;
	RepoTags: string[];
	Config: Json & {
		Env: string[];
		Cmd: string[];
		ExposedPorts: Json;
		Labels: Json;
	};
}

/** Where it is, in the host. */
export const stateFile = "/var/lib/docker-stand-in/state.json";

/** Where its commands are answered. */
export const commands = "/run/docker-stand-in.sock";

/** The image that Open WebUI publishes (its Dockerfile says what is in it). */
export const openWebUi = "ghcr.io/open-webui/open-webui:main";

export const initialState: DockerState = {
	containers: [],
	volumes: [],
	images: [
		{
			Id: `sha256:${"0b5c1e37".repeat(8)}`,
			RepoTags: [openWebUi],
			RepoDigests: [
				`ghcr.io/open-webui/open-webui@sha256:${"9d3f42aa".repeat(8)}`,
			],
			Created: "2026-10-02T09:12:44.512Z",
			Architecture: "amd64",
			Os: "linux",
			Config: {
				ExposedPorts: { "8080/tcp": {} },
				Env: [
					"PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
					"LANG=C.UTF-8",
					"PYTHON_VERSION=3.11.14",
					"PYTHONUNBUFFERED=1",
					"ENV=prod",
					"PORT=8080",
					"USE_OLLAMA_DOCKER=false",
					"OLLAMA_BASE_URL=/ollama",
					"OPENAI_API_BASE_URL=",
					"OPENAI_API_KEY=",
					"WEBUI_SECRET_KEY=",
					"SCARF_NO_ANALYTICS=true",
					"DO_NOT_TRACK=true",
					"ANONYMIZED_TELEMETRY=false",
					"HOME=/root",
					"WEBUI_BUILD_VERSION=f00dcafe",
					"DOCKER=true",
				],
				Cmd: ["bash", "start.sh"],
				WorkingDir: "/app/backend",
				Entrypoint: null,
				Labels: {
					"org.opencontainers.image.source":
						"https://github.com/open-webui/open-webui",
					"org.opencontainers.image.title": "open-webui",
					"org.opencontainers.image.version": "main",
				},
			},
		},
	],
};

export function readState(file = stateFile): DockerState {
	return JSON.parse(readFileSync(file, "utf8")) as DockerState;
}

export function writeState(state: DockerState, file = stateFile): void {
	mkdirSync(path.dirname(file), { recursive: true });
	writeFileSync(`${file}.new`, JSON.stringify(state, undefined, "\t"));
	renameSync(`${file}.new`, file);
}
