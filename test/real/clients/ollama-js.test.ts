import { tryLibrary } from "./library.ts";

tryLibrary("ollama-js", "ollama-js");
