import type { Examination } from "./examination.ts";

export const fail2banExaminations: readonly Examination[] = [];
