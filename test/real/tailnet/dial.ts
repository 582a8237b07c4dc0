import { connect } from "node:net";

/**
 * Opens a TCP connection to each `address port` of its arguments, all at once,
 * and prints as JSON which of them were open, in their order. The first argument
 * is how long one may take, in milliseconds.
 */
const [timeoutMs, ...targets] = process.argv.slice(2);
const open = await Promise.all(
	targets.map(
		(target) =>
			new Promise<boolean>((resolve) => {
				const [host, port] = target.split(" ");
				const socket = connect({ host: host ?? "", port: Number(port) });
				const settle = (isOpen: boolean) => {
					socket.destroy();
					resolve(isOpen);
				};
				socket.setTimeout(Number(timeoutMs), () => settle(false));
				socket.once("connect", () => settle(true));
				socket.once("error", () => settle(false));
			}),
	),
);
console.log(JSON.stringify(targets.filter((_, index) => open[index])));
