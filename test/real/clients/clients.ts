/** A program or library that the gate is tried with, as its registry has it. */
export interface PinnedClient {
	/** Its name here, in file names and in docs/clients.md. */
	readonly name: string;
	readonly registry: "npm" | "pypi";
	readonly package: string;
	readonly version: string;
	/** npm: the registry's `dist.integrity`; pypi: the SHA-256 of the wheel. */
	readonly checksum: string;
	/** pypi: what of its optional parts it takes: `proxy`. */
	readonly extras?: string;
	/** What it takes besides; such a client is too large to be had unless it is asked for. */
	readonly takes?: {
		/** The minor versions of Python 3 that it runs on. */
		readonly python: readonly number[];
		/** Of the disk, once it is installed. */
		readonly gigabytes: number;
		readonly programs: readonly string[];
	};
}

/**
 * What npm may choose among for the dependencies: versions from before this
 * day. The clients themselves are pinned below.
 */
export const npmBefore = "2026-11-29";

/**
 * Every client that is tried, the one place that has their versions. The
 * `ollama` command is not among them: it comes with the Ollama that is tried.
 */
export const pinnedClients: readonly PinnedClient[] = [
	{
		name: "ollama-js",
		registry: "npm",
		package: "ollama",
		version: "0.6.4",
		checksum:
			"sha512-KzM6b5Sq0TgipeMTdImuELr/V4eNqrTf37PRzUTHCPPieFmboYw6qPn+pX7+lg0nSP1jsKwy4AFkiQFXhqHeZA==",
	},
	{
		name: "openai-js",
		registry: "npm",
		package: "openai",
		version: "7.59.0",
		checksum:
			"sha512-wPYKJkLPFEdNJ2tThSg4jE1Ptsv4X3u8g8LIvu0Qz/UIhsKeCzl73rl48PtQsDVrJL/ku0liXOsbyd2TsRsPJw==",
	},
	{
		name: "claude-code",
		registry: "npm",
		package: "@anthropic-ai/claude-code",
		version: "2.1.332",
		checksum:
			"sha512-tvSh6bLvEbd97APD31AnojOrRC3AmcRj5R8sF8QIQitu3x2ucOb1kKmTkGDw41kjva+CGJfpkt+wYouk6yv56Q==",
	},
	{
		name: "codex",
		registry: "npm",
		package: "@openai/codex",
		version: "0.171.0",
		checksum:
			"sha512-1IOFzL2Xg86tLdw6kDo3GoKbkQENgQi7TI6rlEvN132R7ngSw7SNOIQoTcnKzSZZ8kf9N9GynCweSoaFbqk2Eg==",
	},
	{
		name: "opencode",
		registry: "npm",
		package: "opencode-ai",
		version: "1.18.33",
		checksum:
			"sha512-58P1ffLRXiAY4QeoABqUjqf6DEzm1ihpovvn9Ad+oOLbLiwK/rf88wruT9IATJ7AtNjmi8iA7pC8tN4o5y799Q==",
	},
	{
		name: "openclaw",
		registry: "npm",
		package: "openclaw",
		version: "2026.9.6",
		checksum:
			"sha512-Ie0kyQSCVfFqixsgVg39vevUDq01Ch5u3+7Yu5Y3qARczmdAe+lzp8bVnO9925rHiW/+CFp70zfORCyPmCH31g==",
	},
	{
		name: "ollama-python",
		registry: "pypi",
		package: "ollama",
		version: "0.6.3",
		checksum:
			"6a20bc42c1a5f889295d7ec490d35e5132fc31f339561530f43a8abd4dbfe508",
	},
	{
		name: "openai-python",
		registry: "pypi",
		package: "openai",
		version: "3.57.0",
		checksum:
			"f97bc74024c06ced8428b56c4a3594066709d3082779bf9d0b4b6092fbf587a8",
	},
	{
		name: "anthropic-python",
		registry: "pypi",
		package: "anthropic",
		version: "2.14.0",
		checksum:
			"5cf986851f61c0858ac88c6f7c28490369a68ff4a89c309849605b764da0664d",
	},
	{
		name: "langchain-python",
		registry: "pypi",
		package: "langchain-ollama",
		version: "1.1.0",
		checksum:
			"43ac83a6eacb0f43855810739794dd55019e0d9b17bdcf3ecb3b1991ac3b59dd",
	},
	{
		name: "open-webui",
		registry: "pypi",
		package: "open-webui",
		version: "0.12.4",
		checksum:
			"02e9caba96234db3fa17a92e56163b3f7f2b8ca8227fa886b85c178d696483f6",
		takes: {
			python: [11, 12],
			gigabytes: 8,
			programs: ["python3", "chromium"],
		},
	},
];
