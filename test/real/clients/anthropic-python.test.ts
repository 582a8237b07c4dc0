import { tryLibrary } from "./library.ts";

tryLibrary("anthropic-python", undefined);
