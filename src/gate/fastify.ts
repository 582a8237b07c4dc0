import type { IncomingMessage } from "node:http";
import httpProxy from "@fastify/http-proxy";
import rateLimit from "@fastify/rate-limit";
import fastify, {
	type FastifyInstance,
	type FastifyReply,
	type FastifyRequest,
} from "fastify";
import { routes } from "../ollama/routes.ts";
import { fileOfModel } from "./admission.ts";
import { checkBudget } from "./budget.ts";
import type { Exchange } from "./exchange.ts";
import { checkIdentity } from "./identity.ts";
import { checkPerson } from "./person.ts";
import { createLimits, WindowStore } from "./rateLimit.ts";
import { type Refusal, sendRefusal } from "./refusal.ts";
import { createSharedLimits } from "./shared/limits.ts";
import type { GateState } from "./state.ts";

/** A request's exchange, as a property of it: a WeakMap costs each garbage collection. */
const held = Symbol("exchange");
type HeldRequest = IncomingMessage & { [held]?: Exchange };

export const failedStep = "a step of the gate failed; the request was refused";
export const internalFault: Refusal = {
	status: 500,
	reason: "internal",
	message: "llamagate failed; its log says why",
};

/**
 * The part of a request's way that Fastify's plugins walk: identity, limits and
 * the relay. It sees only what the steps before have let through, and routes by a
 * path that is in the table to the letter, whatever the client sent.
 *
 * @param relay takes the request over
 */
export async function createApp(
	state: GateState,
	relay: (exchange: Exchange) => void,
): Promise<FastifyInstance> {
	const app = fastify({
		logger: false,
		trustProxy: false,
		exposeHeadRoutes: false,
		routerOptions: { maxParamLength: 1024 },
		rewriteUrl: (req) => pathOf(req as IncomingMessage),
		// No route has a schema, so nothing that compiles schemas is loaded.
		schemaController: {
			compilersFactory: {
				buildValidator: noSchemas,
				buildSerializer: noSchemas,
			},
		},
	});
	const limits = await limitsOf(state, app);
	app.addHook("onRequest", async (request, reply) => {
		const exchange = exchangeOf(request);
		const { mode } = state.settings.identity;
		const refusal =
			(mode === "off"
				? undefined
				: await checkIdentity(exchange, mode, state.whois)) ??
			(exchange.credential?.key.people === undefined
				? undefined
				: await checkPerson(state, exchange)) ??
			(exchange.credential?.key.narrowed === undefined
				? undefined
				: fileOfModel(state, exchange)) ??
			(await limits(request)) ??
			(exchange.ended ? undefined : checkBudget(state, exchange));
		// The client may have left while the limits were counted.
		if (refusal === undefined && !exchange.ended) return;
		reply.hijack();
		if (refusal !== undefined) state.refusalThrottle.refuse(exchange, refusal);
	});
	app.setErrorHandler((error, request, reply) => {
		state.log.error({ err: error }, failedStep);
		reply.hijack();
		sendRefusal(exchangeOf(request), internalFault);
	});
	await app.register(httpProxy, {
		upstream: "http://127.0.0.1",
		routes: [...new Set(routes.map(({ path }) => path))],
		httpMethods: [...new Set(routes.map(({ method }) => method))],
		// Before the plugin makes a destination of the path, by five readings of it as a
		// URL. What Ollama is asked for is what the route table matched, to the letter.
		preHandler: (request: FastifyRequest, reply: FastifyReply) => {
			reply.hijack();
			relay(exchangeOf(request));
		},
		handler: () => {
			throw new Error("a request went past the relay");
		},
	});
	await app.ready();
	return app;
}

/** Where gates share their limits, one step of Valkey counts all of them, which a store of this plugin cannot. */
async function limitsOf(
	state: GateState,
	app: FastifyInstance,
): Promise<(request: FastifyRequest) => Promise<Refusal | undefined>> {
	const { shared } = state;
	if (shared !== undefined) {
		const limits = createSharedLimits(state, shared);
		return (request) => limits.check(exchangeOf(request));
	}
	await app.register(rateLimit, { global: false, store: WindowStore });
	return createLimits(app, () => state.settings, exchangeOf).check;
}

function noSchemas(): never {
	throw new Error("a route of the gate has a schema");
}

/** Hands a request on to Fastify. */
export function pass(app: FastifyInstance, exchange: Exchange): void {
	const { req, res } = exchange;
	(req as HeldRequest)[held] = exchange;
	// The gate has read them. Whatever type and length they tell of, a body is passed
	// on as it is: Fastify would parse it.
	req.headers = {};
	app.routing(req, res);
}

function exchangeOf(request: FastifyRequest): Exchange {
	const exchange = (request.raw as HeldRequest)[held];
	if (exchange === undefined)
		throw new Error("a request came to Fastify past the gate's first steps");
	return exchange;
}

function pathOf(req: IncomingMessage): string {
	const match = (req as HeldRequest)[held]?.match;
	if (match?.kind !== "route")
		throw new Error("a request came to Fastify without a route");
	return match.path;
}
