import type { Examination } from "./examination.ts";

export const ollamaExaminations: readonly Examination[] = [];
