import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { Ajv, type AnySchema } from "ajv";
import standaloneCode from "ajv/dist/standalone/index.js";
import { budgetSchema } from "../../src/config/budget.ts";
import { configSchema } from "../../src/config/schema.ts";
import { ajvOptions } from "../../src/config/validator.ts";
import { keyFileSchema } from "../../src/keys/keyFile.ts";

/** The schemas that the program checks with, by the file that does. */
const schemas: Readonly<Record<string, AnySchema>> = {
	"config/budget.ts": budgetSchema,
	"config/load.ts": configSchema,
	"keys/keyFile.ts": keyFileSchema,
};

/**
 * What stands for src/config/validator.ts in the published program: the same
 * function, with the validators compiled ahead. It knows a schema by its text, so
 * that it can never check with another than the caller has.
 *
 * @throws if a file checks with a schema that is not known here
 */
export function compiledValidators(): string {
	compareWithSources();
	const ajv = new Ajv({
		...ajvOptions,
		code: { source: true, esm: true },
	});
	const exported: Record<string, string> = {};
	const byText: string[] = [];
	for (const [index, [file, schema]] of Object.entries(schemas).entries()) {
		ajv.addSchema(schema, file);
		exported[`validator${index}`] = file;
		const text = JSON.stringify(JSON.stringify(schema));
		byText.push(`\t[${text}, validator${index}],\n`);
	}
	return `${(standaloneCode as unknown as typeof standaloneCode.default)(ajv, exported)}
const validators = new Map([
${byText.join("")}]);
export function validatorOf(schema) {
	const validate = validators.get(JSON.stringify(schema));
	if (validate === undefined)
		throw new Error("this schema is not one that scripts/build/validators.ts compiles");
	return validate;
}
`;
}

/** A schema that is missing would be told of at the users', when a file is read. */
function compareWithSources(): void {
	const cwd = path.join(import.meta.dirname, "../../src");
	const checking = globSync("**/*.ts", { cwd })
		.filter((file) =>
			/(?<!function )\bparseStrictJson\(/.test(
				readFileSync(path.join(cwd, file), "utf8"),
			),
		)
		.sort();
	const known = Object.keys(schemas).sort();
	if (checking.join() !== known.join())
		throw new Error(
			`scripts/build/validators.ts knows the schemas of ${known.join(", ")}, and those that check with one are ${checking.join(", ")}`,
		);
}
