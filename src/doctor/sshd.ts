import type { Examination } from "./examination.ts";

export const sshdExaminations: readonly Examination[] = [];
