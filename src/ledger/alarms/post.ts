import { request as plainRequest, secureRequest } from "../../net/http.ts";
import { tailnetLookup } from "../../net/tailnetLookup.ts";
import type { AlarmClock } from "./clock.ts";
import type { Post } from "./forms.ts";

/** What came of a post: it arrived; it may be tried again; or that is of no use. */
export type PostResult =
	| { readonly kind: "arrived" }
	| { readonly kind: "failed" | "refused"; readonly why: string };

/** How long a receiver may take for all of it. */
const patienceMs = 10_000;

/**
 * Posts JSON once. No redirect is followed: it would carry a secret elsewhere.
 * What is said of a failure holds nothing of the address but what is known of it
 * as its host.
 */
export function post(
	{ url, body }: Post,
	clock: AlarmClock,
): Promise<PostResult> {
	const { promise, resolve } = Promise.withResolvers<PostResult>();
	let cancel = () => {};
	const end = (result: PostResult) => {
		cancel();
		resolve(result);
	};
	const text = JSON.stringify(body);
	const { username, password } = url;
	const login = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
	const isSecure = url.protocol === "https:";
	const request = isSecure ? secureRequest() : plainRequest;
	const req = request(
		{
			protocol: url.protocol,
			hostname: url.hostname.replace(/^\[|\]$/g, ""),
			port: url.port,
			path: `${url.pathname}${url.search}`,
			method: "POST",
			agent: false,
			// Without TLS a name is good for as long as it leads into the tailnet.
			...(!isSecure && { lookup: tailnetLookup() }),
			headers: {
				"content-type": "application/json",
				"content-length": Buffer.byteLength(text),
				"user-agent": "llamagate",
				...(login !== ":" && {
					authorization: `Basic ${Buffer.from(login).toString("base64")}`,
				}),
			},
		},
		(res) => {
			end(resultOf(res.statusCode ?? 0));
			// Whatever else it says, nobody reads it.
			res.destroy();
		},
	);
	cancel = clock.after(patienceMs, () => {
		end({
			kind: "failed",
			why: `it did not answer in ${patienceMs / 1000} s`,
		});
		req.destroy();
	});
	req.on("error", (error: NodeJS.ErrnoException) =>
		end({ kind: "failed", why: error.code ?? "the connection broke" }),
	);
	req.on("close", () =>
		end({ kind: "failed", why: "it closed the connection" }),
	);
	req.end(text);
	return promise;
}

function resultOf(status: number): PostResult {
	if (status >= 200 && status < 300) return { kind: "arrived" };
	if (status >= 300 && status < 400)
		return {
			kind: "refused",
			why: `it answered ${status}, and redirects are not followed`,
		};
	const isPassing = status === 408 || status === 429 || status >= 500;
	return {
		kind: isPassing ? "failed" : "refused",
		why: `it answered ${status}`,
	};
}
