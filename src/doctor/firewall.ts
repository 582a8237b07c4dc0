import type { Examination } from "./examination.ts";

export const firewallExaminations: readonly Examination[] = [];
