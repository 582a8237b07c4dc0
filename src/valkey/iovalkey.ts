/**
 * The client library, alone in its file: the published program keeps it in a file
 * of its own, which is loaded only where the configuration has `state`
 * (scripts/build/bundle.ts).
 */
export { Redis } from "iovalkey";
