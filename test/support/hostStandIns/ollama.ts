import { request } from "node:http";
import { startStandIn } from "../../../src/ollama/standIn.ts";

/**
 * What a host that is booted for a test has as `ollama`: the server, where
 * OLLAMA_HOST says, and as much of the command as is looked at.
 */
process.title = "ollama";
const [command] = process.argv.slice(2);
/** A test may have another one answer. */
const version = process.env.STAND_IN_VERSION ?? "0.35.0";
const { host, port } = ollamaHost(process.env.OLLAMA_HOST ?? "");

switch (command) {
	case "serve":
		await serve();
		break;
	case "list":
	case "ls":
		for (const { name } of (await tags()).models) console.log(name);
		break;
	case "-v":
	case "--version":
		console.log(`ollama version is ${version}`);
		break;
	default:
		console.error(`Error: unknown command ${command} for "ollama"`);
		process.exitCode = 1;
}

async function serve(): Promise<void> {
	const standIn = await startStandIn({
		...{ host, port, version, tokenIntervalMs: 50 },
		noCloud: /^(1|true)$/i.test(process.env.OLLAMA_NO_CLOUD ?? ""),
	}).catch((error: Error) => {
		console.error(`Error: listen tcp ${host}:${port}: ${error.message}`);
		return process.exit(1);
	});
	const say = (line: Record<string, string>) =>
		process.stdout.write(`${JSON.stringify(line)}\n`);
	standIn.events.on("call", ({ method, target }) =>
		say({ call: `${method} ${target}` }),
	);
	standIn.events.on("abort", ({ method, target }) =>
		say({ abort: `${method} ${target}` }),
	);
	say({ url: standIn.url });
}

function tags(): Promise<{ models: { name: string }[] }> {
	return new Promise((resolve, reject) => {
		request(
			{ host: host === "::" ? "127.0.0.1" : host, port, path: "/api/tags" },
			async (res) => {
				const chunks = await res.setEncoding("utf8").toArray();
				resolve(JSON.parse(chunks.join("")));
			},
		)
			.on("error", reject)
			.end();
	});
}

/** envconfig/config.go:Host */
function ollamaHost(text: string): { host: string; port: number } {
	const value = text.trim().replace(/^["']+|["']+$/g, "");
	const [, scheme, rest = ""] = /^(?:([^/]*?):\/\/)?(.*)$/s.exec(value) ?? [];
	const standardPort = { http: 80, https: 443 }[scheme ?? ""] ?? 11434;
	const [authority = ""] = rest.split("/");
	const [, v6, v4, digits] =
		/^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/.exec(authority) ?? [];
	// An IPv6 address without brackets has no port.
	const name = v6 ?? v4 ?? authority;
	const wanted = digits === undefined || digits === "" ? NaN : Number(digits);
	const isPort = Number.isInteger(wanted) && wanted >= 0 && wanted <= 65_535;
	return {
		host: listeningHost(name, digits !== undefined),
		port: isPort ? wanted : standardPort,
	};
}

/** Go takes no host, and 0.0.0.0 too, for all addresses of both families (net/ipsock_posix.go:favoriteAddrFamily). */
function listeningHost(name: string, hasPort: boolean): string {
	if (name === "0.0.0.0" || name === "::" || (name === "" && hasPort))
		return "::";
	return name === "" || name === "localhost" ? "127.0.0.1" : name;
}
