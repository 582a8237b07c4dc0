import type { Examination } from "./examination.ts";

export const tailscaleExaminations: readonly Examination[] = [];
