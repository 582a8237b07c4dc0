import t from "tap";
import { refusedPaths, routes } from "../../src/ollama/routes.ts";
import { compareRoutes, readRoutes } from "../conformance/ollamaRoutes.ts";

/** The gate's table as an Ollama would register it. */
const registrations = [
	...routes.map(({ method, path }) => `\tr.${method}("${path}", s.Handler)`),
	'\tr.Any(proxy.Prefix+"/*path", gin.WrapH(other))',
];
const sourceOf = (lines: readonly string[]) =>
	`package server\n\nfunc (s *Server) GenerateRoutes() (http.Handler, error) {\n\tr := gin.Default()\n\tr.Use(\n\t\tcors.New(config),\n\t)\n${lines.join("\n")}\n\treturn r, nil\n}\n\nfunc other() {\n\tr.GET("/elsewhere", x)\n}\n`;
const compare = (lines: readonly string[]) =>
	compareRoutes(
		readRoutes(sourceOf(lines), (name) =>
			name === "proxy.Prefix" ? "/api/codex" : undefined,
		),
	);

t.test("an Ollama with the table's own routes is the same", async (t) => {
	const { rows, gone, unread, isSame } = compare(registrations);
	t.ok(isSame);
	t.strictSame([gone, unread], [[], []]);
	t.equal(rows.length, routes.length + refusedPaths.length);
	t.equal(rows.at(-1)?.verdict, "refused by name");
});

t.test("what is new, gone or not understood is told", async (t) => {
	const added = compare([...registrations, '\tr.POST("/api/new", x)']);
	t.notOk(added.isSame);
	t.strictSame(added.rows.at(-1), {
		route: { method: "POST", path: "/api/new" },
		verdict: "NOT IN THE TABLE",
	});
	const fewer = compare(registrations.slice(1));
	t.notOk(fewer.isSame);
	t.strictSame(fewer.gone, [routes[0]?.id]);
	for (const line of [
		'r.Handle("TRACE", "/x", y)',
		'api := r.Group("/api")',
		"r.GET(unknown.Path, y)",
	]) {
		const odd = compare([...registrations, `\t${line}`]);
		t.notOk(odd.isSame);
		t.strictSame(odd.unread, [line]);
	}
	t.notOk(compare([]).isSame, "nor is one without any routes");
});
