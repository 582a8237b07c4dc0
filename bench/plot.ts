const width = 640;
const rowHeight = 26;
const labelWidth = 130;
const ink = "#57606a";
const colours: Readonly<Record<string, string>> = { gate: "#1f6feb" };
const otherColour = "#9aa4af";

const escapeXml = (text: string) =>
	text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

function page(height: number, title: string, body: string): string {
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeXml(title)}" font-family="system-ui, sans-serif" font-size="13" fill="${ink}">
<text x="0" y="16" font-weight="600">${escapeXml(title)}</text>
${body}</svg>
`;
}

/** Bars, one below the other: a value for each name. */
export function bars(
	title: string,
	unit: string,
	values: readonly (readonly [name: string, value: number])[],
): string {
	const most = Math.max(...values.map(([, value]) => value), Number.MIN_VALUE);
	const room = width - labelWidth - 90;
	const rows = values.map(([name, value], index) => {
		const y = 28 + index * rowHeight;
		const length = Math.max(1, (room * Math.max(0, value)) / most);
		return `<text x="0" y="${y + 16}">${escapeXml(name)}</text><rect x="${labelWidth}" y="${y + 3}" width="${length.toFixed(1)}" height="${rowHeight - 8}" rx="2" fill="${colours[name] ?? otherColour}"/><text x="${(labelWidth + length + 6).toFixed(1)}" y="${y + 16}">${label(value)} ${escapeXml(unit)}</text>\n`;
	});
	return page(34 + values.length * rowHeight, title, rows.join(""));
}

function label(value: number): string {
	return value >= 100
		? Math.round(value).toLocaleString("en-US")
		: value.toPrecision(3);
}

/** Points over a logarithmic x, joined by lines; y begins at zero unless it is logarithmic too. */
export function lines(
	title: string,
	[xUnit, yUnit]: readonly [string, string],
	points: readonly (readonly [x: number, y: number])[],
	logarithmic = false,
): string {
	const [left, top, right, bottom] = [70, 34, width - 20, 250];
	const xs = points.map(([x]) => Math.log10(x));
	const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
	const toScale = (y: number) =>
		logarithmic ? Math.log10(Math.max(y, 1e-6)) : y;
	const ys = points.map(([, y]) => toScale(y));
	const yLow = logarithmic ? Math.min(...ys) : 0;
	const yHigh = Math.max(...ys) * (logarithmic ? 1 : 1.1) || 1;
	const xAt = (x: number) =>
		left + ((right - left) * (Math.log10(x) - xLow)) / (xHigh - xLow || 1);
	const yAt = (y: number) =>
		bottom - ((bottom - top) * (toScale(y) - yLow)) / (yHigh - yLow || 1);
	const marks = [...new Set(points.map(([x]) => x))].map(
		(x) =>
			`<text x="${xAt(x).toFixed(1)}" y="${bottom + 18}" text-anchor="middle">${short(x)}</text>\n`,
	);
	const levels = [0, 0.25, 0.5, 0.75, 1].map((share) => {
		const scaled = yLow + share * (yHigh - yLow);
		const y = logarithmic ? 10 ** scaled : scaled;
		const at = yAt(y).toFixed(1);
		return `<line x1="${left}" x2="${right}" y1="${at}" y2="${at}" stroke="${ink}" stroke-opacity=".2"/><text x="${left - 6}" y="${Number(at) + 4}" text-anchor="end">${short(y)}</text>\n`;
	});
	const path = points
		.map(([x, y]) => `${xAt(x).toFixed(1)},${yAt(y).toFixed(1)}`)
		.join(" ");
	const dots = points.map(
		([x, y]) =>
			`<circle cx="${xAt(x).toFixed(1)}" cy="${yAt(y).toFixed(1)}" r="3" fill="${colours.gate}"/>`,
	);
	const drawn = `<polyline points="${path}" fill="none" stroke="${colours.gate}" stroke-width="2"><title>${escapeXml(title)}</title></polyline>${dots.join("")}\n`;
	return page(
		290,
		`${title} (${yUnit})`,
		`${levels.join("")}${marks.join("")}<text x="${right}" y="${bottom + 36}" text-anchor="end">${escapeXml(xUnit)}</text>\n${drawn}`,
	);
}

/** What a panel shows, by group: its dots. */
export type Dots = Readonly<
	Record<string, readonly (readonly [x: number, y: number])[]>
>;

/**
 * Dots over x in panels, one below the other, all on the same scales; y is
 * logarithmic. Each group has its colour, the last the gate's.
 */
export function dots(
	title: string,
	[xUnit, yUnit]: readonly [string, string],
	panels: Readonly<Record<string, Dots>>,
): string {
	const [left, right, top, height, gap] = [labelWidth, width - 40, 48, 74, 14];
	const all = Object.values(panels).flatMap((groups) =>
		Object.values(groups).flat(),
	);
	const xHigh = Math.max(...all.map(([x]) => x), 1);
	const scaled = (y: number) => Math.log10(Math.max(y, 0.01));
	const yLow = Math.floor(Math.min(...all.map(([, y]) => scaled(y)), 0));
	const yHigh = Math.max(...all.map(([, y]) => scaled(y)), yLow + 1);
	const xAt = (x: number) => left + ((right - left) * x) / xHigh;
	const groupNames = [...new Set(Object.values(panels).flatMap(Object.keys))];
	const colourOf = (group: string) =>
		group === groupNames.at(-1) ? colours.gate : otherColour;
	const legend = groupNames.map(
		(name, index) =>
			`<circle cx="${left + 4 + index * 110}" cy="32" r="3" fill="${colourOf(name)}"/><text x="${left + 12 + index * 110}" y="36">${escapeXml(name)}</text>`,
	);
	const drawn = Object.entries(panels).map(([name, groups], index) => {
		const bottom = top + index * (height + gap) + height;
		const yAt = (y: number) =>
			bottom - (height * (scaled(y) - yLow)) / (yHigh - yLow);
		const levels: string[] = [];
		for (let power = yLow; power <= yHigh; power++) {
			const at = yAt(10 ** power).toFixed(1);
			levels.push(
				`<line x1="${left}" x2="${right}" y1="${at}" y2="${at}" stroke="${ink}" stroke-opacity=".2"/><text x="${right + 6}" y="${Number(at) + 4}">${short(10 ** power)}</text>`,
			);
		}
		const marks = groupNames.flatMap((group) =>
			(groups[group] ?? []).map(
				([x, y]) =>
					`<circle cx="${xAt(x).toFixed(1)}" cy="${yAt(y).toFixed(1)}" r="2.5" fill="${colourOf(group)}"/>`,
			),
		);
		return `<text x="0" y="${bottom - height / 2}">${escapeXml(name)}</text>${levels.join("")}${marks.join("")}\n`;
	});
	const bottom = top + drawn.length * (height + gap);
	return page(
		bottom + 20,
		`${title} (${yUnit})`,
		`${legend.join("")}\n${drawn.join("")}<text x="${left}" y="${bottom + 8}">0</text><text x="${right}" y="${bottom + 8}" text-anchor="end">${short(xHigh)} ${escapeXml(xUnit)}</text>\n`,
	);
}

function short(value: number): string {
	for (const [size, sign] of [
		[1e9, "G"],
		[1e6, "M"],
		[1e3, "k"],
	] as const)
		if (value >= size) return `${Number((value / size).toPrecision(3))}${sign}`;
	return String(Number(value.toPrecision(2)));
}
