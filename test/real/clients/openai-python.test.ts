import { tryLibrary } from "./library.ts";

tryLibrary("openai-python", "openai-python");
