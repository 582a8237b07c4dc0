/** Where Ollama listens unless it was told otherwise. */
export const usualPort = 11434;
