/** The share of a key whose entry names none. */
export const defaultShare = 1;

/** What a key's share may be: more than nothing, and so far apart that sums stay exact. */
export const shareLimits = { minimum: 0.001, maximum: 1000 } as const;
