/** How long ago, or how long: "40 s", "3 min", "5 h", "2 d". */
export function formatAge(ms: number): string {
	const seconds = Math.max(0, Math.round(ms / 1000));
	if (seconds < 120) return `${seconds} s`;
	if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
	if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
	return `${Math.round(seconds / 86_400)} d`;
}

/** A sum of times: `2 h 05 min`, `3 min 20 s`, `4.5 s`. */
export function formatTime(ms: number): string {
	const seconds = ms / 1000;
	if (seconds < 60) return `${seconds.toFixed(1)} s`;
	const two = (number: number) => String(number).padStart(2, "0");
	const minutes = Math.floor(seconds / 60);
	return minutes < 60
		? `${minutes} min ${two(Math.floor(seconds % 60))} s`
		: `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}
