import t from "tap";
import { unguardedService } from "../../src/system/knownServices.ts";

t.test("a service is known by its program, or else by its port", (t) => {
	t.equal(unguardedService(9, ["node", "redis-server"]), "Redis");
	t.equal(unguardedService(11434), "Ollama");
	for (const name of ["node", "constructor", "toString", "__proto__"])
		t.equal(unguardedService(9, [name]), undefined, name);
	t.end();
});
