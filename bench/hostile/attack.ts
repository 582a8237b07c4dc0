/**
 * The attacker, in a process of its own: `node attack.ts NAME PORT KEY ADDRESS`.
 * It goes on until it is stopped, and opens every connection anew that is closed.
 */
import { connect } from "node:net";
import { zstdCompressSync } from "node:zlib";
import { type HostileLoad, hostileLoads } from "./loads.ts";

const [name, port, key = "", from] = process.argv.slice(2);
const load = hostileLoads.find((one) => one.name === name);
if (load === undefined) throw new Error(`there is no hostile load "${name}"`);
/** What is sent of a load whose body is packed. */
const packed = pack(load);
for (let index = 0; index < load.connections; index++) open(load);

function pack({ body }: HostileLoad): Buffer | undefined {
	if (body?.packedAndLeftAfterMs === undefined) return undefined;
	const { first = "", again, length = 0 } = body;
	const count = Math.ceil((length - first.length) / again.length);
	return zstdCompressSync((first + again.repeat(count)).slice(0, length));
}

function headOf({
	method = "POST",
	path = "/api/chat",
	headers = [],
	body,
}: HostileLoad): string {
	const length = packed?.length ?? body?.length;
	return [
		`${method} ${path} HTTP/1.1`,
		"Host: gate",
		...(key === "" ? [] : [`Authorization: Bearer ${key}`]),
		...headers,
		...(length === undefined ? [] : [`Content-Length: ${length}`]),
		"\r\n",
	].join("\r\n");
}

function open(load: HostileLoad): void {
	const socket = connect({
		port: Number(port),
		host: "127.0.0.1",
		localAddress: from ?? "127.0.0.1",
		noDelay: load.body?.tiny === true,
	});
	const head = headOf(load);
	let timer: NodeJS.Timeout | undefined;
	socket.on("error", () => {});
	socket.on("close", () => {
		clearInterval(timer);
		// It goes on at once: there is always another connection.
		setTimeout(open, 1, load);
	});
	const { body } = load;
	if (body === undefined) {
		socket.on("connect", () => socket.write(head));
		let text = "";
		socket.on("data", (more) => {
			text += more.toString("latin1");
			const end = text.indexOf("\r\n\r\n");
			const length = Number(
				/^content-length: (\d+)/im.exec(text.slice(0, end))?.[1] ?? 0,
			);
			if (end === -1 || text.length < end + 4 + length) return;
			text = "";
			socket.write(head);
		});
		return;
	}
	if (packed !== undefined) {
		socket.on("connect", () => {
			socket.write(head);
			socket.write(packed);
			setTimeout(() => socket.destroy(), body.packedAndLeftAfterMs);
		});
		socket.resume();
		return;
	}
	// Whoever reads no replies is held back by what waits in his socket.
	socket.resume();
	const block = Buffer.from(
		body.again.repeat(Math.ceil(65_536 / body.again.length)),
	);
	let left = body.length ?? Number.POSITIVE_INFINITY;
	let untilTrickle = body.trickleAfter ?? Number.POSITIVE_INFINITY;
	const go = () => {
		while (!socket.destroyed) {
			if (untilTrickle <= 0) {
				timer = setInterval(() => socket.write("x"), 100);
				return;
			}
			const size = body.tiny === true ? 1 : Math.min(block.length, left);
			if (size === 0) return;
			left -= size;
			untilTrickle -= size;
			const piece = block.subarray(0, size);
			if (body.tiny === true) {
				socket.write(piece, () => setImmediate(go));
				return;
			}
			if (!socket.write(piece)) return;
		}
	};
	socket.on("drain", () => {
		if (body.tiny !== true) go();
	});
	socket.on("connect", () => {
		const first = body.first ?? "";
		left -= first.length;
		socket.write(head + first);
		go();
	});
}
