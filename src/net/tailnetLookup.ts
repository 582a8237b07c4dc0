import { type LookupAddress, type LookupOptions, lookup } from "node:dns";
import { isTailscaleAddress } from "./ranges.ts";

/** The code of a look-up that has led out of the tailnet. */
export const notInTailnet = "ENOTTAILNET";

type Callback = (
	error: NodeJS.ErrnoException | null,
	address: string | LookupAddress[],
	family?: number,
) => void;

/** How names are looked up; the system's way unless a test has another. */
export type Resolve = (
	name: string,
	options: { all: true },
	callback: (
		error: NodeJS.ErrnoException | null,
		addresses: LookupAddress[],
	) => void,
) => void;

/**
 * A `lookup` for `net.connect` that takes a name only where all its addresses are
 * the tailnet's. Made at each connection, it leaves no time in which a DNS server
 * could move the name elsewhere: what was looked at is what is dialled.
 */
export function tailnetLookup(resolve: Resolve = lookup) {
	return (name: string, options: LookupOptions, callback: Callback): void => {
		resolve(name, { all: true }, (error, addresses) => {
			if (error !== null) return callback(error, []);
			const elsewhere = addresses.find(
				({ address }) => !isTailscaleAddress(address),
			);
			const [first] = addresses;
			if (elsewhere !== undefined || first === undefined)
				callback(new NotInTailnet(name, elsewhere?.address), []);
			else if (options.all === true) callback(null, addresses);
			else callback(null, first.address, first.family);
		});
	};
}

/** A name has an address that no tailnet gives, or none. */
export class NotInTailnet extends Error {
	readonly code = notInTailnet;
	readonly address: string | undefined;

	constructor(name: string, address: string | undefined) {
		super(`${name} leads to ${address ?? "no address"}, outside the tailnet`);
		this.address = address;
	}
}
