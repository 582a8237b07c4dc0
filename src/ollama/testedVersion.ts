/**
 * The newest Ollama that test/contract was run on: what the gate relies on holds
 * for it. `npm run test:real` fails where this is not the newest that it runs.
 */
export const testedOllama = "0.34.0";
