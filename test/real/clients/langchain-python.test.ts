import { tryLibrary } from "./library.ts";

tryLibrary("langchain-python", "langchain");
