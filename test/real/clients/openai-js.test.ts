import { tryLibrary } from "./library.ts";

tryLibrary("openai-js", "openai-js");
