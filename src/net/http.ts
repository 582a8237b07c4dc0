/**
 * What this program takes of node:http. To `import` that by name has Node read
 * each of its exports, and one of them loads Node's own fetch: a tenth of a
 * second and some megabytes at every start of every command.
 */
export const { Agent, createServer, request, STATUS_CODES } =
	process.getBuiltinModule("node:http");

export type Agent = InstanceType<typeof Agent>;

/** The same of node:https, which few commands need. */
export function secureRequest() {
	return process.getBuiltinModule("node:https").request;
}
