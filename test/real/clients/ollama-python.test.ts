import { tryLibrary } from "./library.ts";

tryLibrary("ollama-python", "ollama-python");
