import path from "node:path";

/**
 * The folder of the package: what holds `package.json`, `bin` and `systemd`. This
 * file lies one below it, in `src` as in `dist`, where all that is built lies flat.
 */
export const packageFolder: string = path.join(import.meta.dirname, "..");
