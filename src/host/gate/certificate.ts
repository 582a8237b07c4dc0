import { loadConfig } from "../../config/load.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { noticeMs, type TlsStatus } from "../../tls/keeper.ts";
import { askGate } from "./inspect.ts";

export async function examineCertificate(patient: Patient): Promise<Outcome> {
	const asked = await askGate(patient);
	if (asked.kind !== "status") return unknown(asked.why);
	const { tls } = asked.status;
	if (tls === undefined) return absent("the gate speaks plain HTTP");
	const settings = await loadConfig(patient.configFile);
	const answer = await createWhois({
		socket: settings.identity.socket,
	}).status();
	const given = settings.tls?.kind === "files" ? settings.tls.name : undefined;
	return judgeCertificate(
		tls,
		given ?? (answer.kind === "status" ? answer.status.dnsName : ""),
		patient.nowMs,
	);
}

/**
 * What is to be said of the certificate in force.
 *
 * @param name what clients call the node; empty where that is not known
 */
export function judgeCertificate(
	{ source, names, ends, problem }: TlsStatus,
	name: string,
	nowMs: number,
): Outcome {
	const why = problem === null ? [] : [problem];
	if (ends === null)
		return finding([
			"the certificate is missing, so the gate closes every connection",
			...why,
		]);
	const day = ends.slice(0, 10);
	const leftMs = Date.parse(ends) - nowMs;
	const seen = `${names.join(", ")}, by ${source}, until ${day}`;
	if (leftMs <= 0)
		return finding([
			`the certificate ended on ${day}, and clients refuse it`,
			...why,
		]);
	if (leftMs <= noticeMs)
		return finding([`the certificate ends on ${day}`, ...why], {
			severity: "warn",
		});
	const isFor = names.some(
		(one) =>
			one === name ||
			(one.startsWith("*.") && name.slice(name.indexOf(".")) === one.slice(1)),
	);
	const hasNames = names.some((one) => /[a-z]/.test(one) && !one.includes(":"));
	if (name !== "" && hasNames && !isFor)
		return finding([`${seen}; and this node is called ${name}`], {
			severity: "warn",
		});
	if (problem !== null) return finding([seen, problem], { severity: "warn" });
	return ok(seen);
}
