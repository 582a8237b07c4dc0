import t from "tap";
import { UpstreamHealth } from "../../src/gate/upstreamHealth.ts";

t.test(
	"Ollama is down when nothing was answered for half a minute, and that is told once",
	async (t) => {
		const health = new UpstreamHealth();
		t.ok(health.isUp);
		t.notOk(health.failed(1_000));
		t.notOk(health.isUp);
		t.notOk(health.failed(30_999));
		t.ok(health.failed(31_000));
		t.notOk(health.failed(90_000), "it was told");
		t.ok(health.answered(), "that it is over is told, too");
		t.notOk(health.answered(), "once");
		t.ok(health.isUp);
		t.notOk(health.failed(100_000), "it begins anew");
		t.ok(health.failed(130_000));
	},
);

t.test(
	"a restart of a few seconds is no outage, whenever it comes",
	async (t) => {
		const health = new UpstreamHealth();
		for (const second of [0, 10, 29]) t.notOk(health.failed(second * 1_000));
		t.notOk(health.answered());
		for (const second of [40, 50, 69]) t.notOk(health.failed(second * 1_000));
	},
);
