import { execFileSync } from "node:child_process";
import { statfsSync } from "node:fs";
import { temporaryFolder } from "./temporaryFolder.ts";

/** What a test needs of tap. */
interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A file system of its own, with hardly any room; making it takes root. */
export interface TinyDisk {
	readonly folder: string;
	freeBytes(): number;
	makeRoom(): void;
	/** Makes it read-only, or writable again. */
	setReadOnly(readOnly: boolean): void;
}

/** Mounts one; the test's end takes it away. */
export async function tinyDisk(t: Teardown, size = "64k"): Promise<TinyDisk> {
	const folder = await temporaryFolder(t);
	const mount = (...args: string[]) => execFileSync("mount", [...args, folder]);
	mount("-t", "tmpfs", "-o", `size=${size},mode=0700`, "tmpfs");
	t.teardown(() => execFileSync("umount", ["--lazy", folder]));
	return {
		folder,
		freeBytes() {
			const { bavail, bsize } = statfsSync(folder);
			return bavail * bsize;
		},
		makeRoom: () => void mount("-o", "remount,size=64m"),
		setReadOnly: (readOnly) =>
			void mount("-o", `remount,${readOnly ? "ro" : "rw"}`),
	};
}
