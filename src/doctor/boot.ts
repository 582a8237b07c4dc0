import type { Examination } from "./examination.ts";

export const bootExaminations: readonly Examination[] = [];
