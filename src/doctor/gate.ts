import type { Examination } from "./examination.ts";

export const gateExaminations: readonly Examination[] = [];
