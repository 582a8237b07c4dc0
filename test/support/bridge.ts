import { once } from "node:events";
import { connect, createServer } from "node:net";
import path from "node:path";

/**
 * A bridge as systemd-socket-proxyd makes it: it takes every connection, then
 * dials, and closes what it finds nobody for.
 *
 * @param end where the configuration has it, as HOST-PORT
 * @param port where it leads, on loopback
 */
export async function startBridge(
	t: { teardown(action: () => unknown): unknown },
	folder: string,
	end: string,
	port: number,
): Promise<{ readonly taken: () => number }> {
	let taken = 0;
	const server = createServer((near) => {
		taken += 1;
		const far = connect(port, "127.0.0.1");
		near.pipe(far).pipe(near);
		for (const [one, other] of [
			[near, far],
			[far, near],
		] as const)
			one.on("error", () => other.destroy()).on("close", () => other.destroy());
	}).listen(path.join(folder, `${end}.sock`));
	await once(server, "listening");
	t.teardown(() => server.close());
	return { taken: () => taken };
}
