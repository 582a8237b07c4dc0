import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

/** What this needs of tap: a place to say what must be closed at a test's end. */
interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A folder of its own, gone at the test's end. */
export async function temporaryFolder(t: Teardown): Promise<string> {
	const folder = await mkdtemp(path.join(tmpdir(), "llamagate-test-"));
	t.teardown(() => rm(folder, { recursive: true, force: true }));
	return folder;
}
