import { createHash } from "node:crypto";
import { noteFiles } from "../config/ordinaryFile.ts";
import type { Rules } from "./rules.ts";

/** Rules, and out of which files they were read. */
export interface NotedRules {
	readonly rules: Rules;
	/** Those that are read at the start and at reloads alone. */
	readonly files: readonly string[];
	/**
	 * What tells what these files held from anything else, whatever their dates. It
	 * is shown to nobody: a short secret in them may be guessed by it.
	 */
	readonly mark: string;
	/** Whether any file that was read is another now, a certificate's too. */
	readonly haveChanged: () => Promise<boolean>;
}

/**
 * Notes what `load` reads.
 *
 * @throws what `load` does
 */
export async function noteRules(
	load: () => Promise<Rules>,
): Promise<NotedRules> {
	const { value: rules, files: all, haveChanged } = await noteFiles(load);
	const { tls } = rules.settings;
	// The running gate takes a new certificate over by itself (CertificateKeeper).
	const followed = tls?.kind === "files" ? [tls.certFile, tls.keyFile] : [];
	const files = all.filter(({ file }) => !followed.includes(file));
	// The configuration is read first, and says which files come after it.
	const said = files.map(({ sha256 }) => sha256).join();
	return {
		rules,
		files: files.map(({ file }) => file),
		mark: createHash("sha256").update(said).digest("hex"),
		haveChanged,
	};
}
