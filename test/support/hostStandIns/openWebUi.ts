import { createServer } from "node:http";

/**
 * What answers where a container of Open WebUI would, as far as somebody asks
 * before logging in (backend/open_webui/main.py: /health, /api/config). Its one
 * argument says where, its environment is the container's.
 */
const places = JSON.parse(process.argv[2] ?? "[]") as {
	host: string;
	port: number;
}[];
/** open_webui/env.py and config.py: only the word itself counts. */
const isOn = (name: string, otherwise: string) =>
	(process.env[name] ?? otherwise).toLowerCase() === "true";

const replies: Record<string, () => unknown> = {
	"/health": () => ({ status: true }),
	"/api/version": () => ({ version: "0.9.2", deployment_id: "" }),
	"/api/config": () => ({
		status: true,
		name: process.env.WEBUI_NAME ?? "Open WebUI",
		version: "0.9.2",
		default_locale: "",
		oauth: { providers: {} },
		features: {
			auth: isOn("WEBUI_AUTH", "True"),
			auth_trusted_header:
				(process.env.WEBUI_AUTH_TRUSTED_EMAIL_HEADER ?? "") !== "",
			enable_signup_password_confirmation: false,
			enable_ldap: false,
			enable_api_keys: false,
			enable_signup:
				isOn("WEBUI_AUTH", "True") && isOn("ENABLE_SIGNUP", "True"),
			enable_login_form: true,
			enable_websocket: true,
			enable_version_update_check: true,
		},
	}),
};

for (const { host, port } of places)
	createServer((req, res) => {
		const [path = ""] = (req.url ?? "").split("?");
		const reply = replies[path];
		if (reply !== undefined) {
			res.setHeader("content-type", "application/json");
			return res.end(JSON.stringify(reply()));
		}
		const isApi = path.startsWith("/api/") || path.startsWith("/ollama/");
		res.writeHead(isApi ? 401 : 200, {
			"content-type": isApi ? "application/json" : "text/html; charset=utf-8",
		});
		res.end(
			isApi
				? '{"detail":"Not authenticated"}'
				: "<!doctype html><title>Open WebUI</title>",
		);
	}).listen(port, host);
