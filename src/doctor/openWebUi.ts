import type { Examination } from "./examination.ts";

export const openWebUiExaminations: readonly Examination[] = [];
