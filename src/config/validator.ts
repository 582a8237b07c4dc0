import { Ajv, type AnySchema, type ValidateFunction } from "ajv";

/**
 * How schemas are compiled. They are our own, a test looks whether they are good,
 * and each is used once: to check and to polish them is two thirds of the time
 * that this takes.
 */
export const ajvOptions = {
	allErrors: true,
	strict: false,
	verbose: true,
	meta: false,
	validateSchema: false,
	code: { optimize: false },
} as const;

const ajv = new Ajv(ajvOptions);
const compiled = new WeakMap<object, ValidateFunction>();

/**
 * What says whether a value is as a schema has it. In the published program it was
 * compiled when that was built (scripts/build/validators.ts), so that no start
 * loads Ajv and compiles anew.
 */
export function validatorOf(schema: AnySchema & object): ValidateFunction {
	let validate = compiled.get(schema);
	if (validate === undefined) {
		validate = ajv.compile(schema);
		compiled.set(schema, validate);
	}
	return validate;
}
