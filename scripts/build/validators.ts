import { Ajv, type AnySchema } from "ajv";
import standaloneCode from "ajv/dist/standalone/index.js";
import { configSchema } from "../../src/config/schema.ts";
import { ajvOptions } from "../../src/config/validator.ts";
import { keyFileSchema } from "../../src/keys/keyFile.ts";

/** The schemas that the program checks its files with. */
const schemas: Readonly<Record<string, AnySchema>> = {
	config: configSchema,
	keys: keyFileSchema,
};

/**
 * What stands for src/config/validator.ts in the published program: the same
 * function, with the validators compiled ahead. It knows a schema by its text, so
 * that it can never check with another than the caller has.
 */
export function compiledValidators(): string {
	const ajv = new Ajv({
		...ajvOptions,
		code: { source: true, esm: true },
	});
	for (const [name, schema] of Object.entries(schemas))
		ajv.addSchema(schema, name);
	const exported = Object.fromEntries(
		Object.keys(schemas).map((name) => [`${name}Validator`, name]),
	);
	const byText = Object.entries(schemas)
		.map(
			([name, schema]) =>
				`\t[${JSON.stringify(JSON.stringify(schema))}, ${name}Validator],\n`,
		)
		.join("");
	return `${(standaloneCode as unknown as typeof standaloneCode.default)(ajv, exported)}
const validators = new Map([
${byText}]);
export function validatorOf(schema) {
	const validate = validators.get(JSON.stringify(schema));
	if (validate === undefined)
		throw new Error("this schema is not one that scripts/build/validators.ts compiles");
	return validate;
}
`;
}
