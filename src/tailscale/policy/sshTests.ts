import type { Answer } from "./nodeAddresses.ts";
import {
	costOf,
	isBareName,
	isSameUser,
	type Party,
	readParty,
	takesIn,
} from "./parties.ts";
import type { SshRule, SshTest, TailnetPolicy } from "./policyFile.ts";
import { maxSteps, Tally, type TestResults } from "./policyTests.ts";
import { every, meetsPostures } from "./postures.ts";
import type { Selectors, Server } from "./selectors.ts";

/**
 * Runs the `sshTests` of a policy under its `ssh` rules, as Tailscale does at
 * each save. Rules for the port do not count here.
 *
 * Source: tailscale.com/docs/reference/syntax/policy-file, under SSH tests; and
 * what Tailscale made of tests, as recorded in headscale's
 * hscontrol/policy/v2/testdata/sshtest_results.
 */
export function runSshTests(
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
): TestResults {
	const tally = new Tally();
	let steps = 0;

	/** What rules of one action say of one login. */
	const lets = (
		test: SshTest,
		from: Party,
		to: Party,
		user: string,
		isWanted: (rule: SshRule) => boolean,
	): Answer => {
		let best: Answer = "no";
		for (const rule of policy.ssh) {
			if (!isWanted(rule)) continue;
			steps +=
				rule.sources.length * costOf(from) +
				rule.hosts.length * costOf(to) +
				rule.users.length;
			if (steps > maxSteps) return "unknown";
			const answer = every([
				any(
					rule.sources.map((selector) =>
						takesIn(selector, from, "src", policy, selectors),
					),
				),
				any(rule.users.map((pattern) => takesUser(pattern, user, from))),
				any(
					rule.hosts.map((selector) =>
						selector === "autogroup:self"
							? isOwn(from, to)
							: takesIn(selector, to, "dst", policy, selectors),
					),
				),
				meetsPostures(rule.postures, test.attributes, policy),
			]);
			if (answer === "yes") return answer;
			if (answer === "unknown") best = answer;
		}
		return best;
	};

	for (const test of policy.sshTests) {
		const from = readParty(test.source, policy, selectors, server);
		if ("wrong" in from) {
			tally.fail(
				test,
				`src ${JSON.stringify(test.source)} cannot be tested: ${from.wrong}`,
				"name one user, group, tag or host that the policy has",
			);
			continue;
		}
		if (test.accept.length + test.check.length + test.deny.length === 0) {
			tally.fail(
				test,
				"it asserts nothing",
				"name users under accept, check or deny",
			);
			continue;
		}
		for (const host of test.hosts) {
			const to = /^autogroup:internet$/.test(host.name)
				? { wrong: "autogroup:internet is not a machine to log in on" }
				: readParty(host.name, policy, selectors, server);
			if ("wrong" in to) {
				tally.fail(
					host,
					`dst ${JSON.stringify(host.name)} cannot be tested: ${to.wrong}`,
					"name a tag, a user or a host, without a port",
				);
				continue;
			}
			const unclear = [from, to].find((named) => "unclear" in named);
			for (const [list, wanted] of [
				[test.accept, "accept"],
				[test.check, "check"],
				[test.deny, "deny"],
			] as const)
				for (const user of list) {
					const what = `${test.source} as ${user.name} on ${host.name}`;
					if (user.name === "") {
						tally.fail(user, "it names no user", "name one, or take it out");
						continue;
					}
					if ("unclear" in from || "unclear" in to || steps > maxSteps) {
						tally.leave(
							user,
							unclear !== undefined && "unclear" in unclear
								? unclear.unclear
								: "there are too many tests and rules to work all of them out",
						);
						continue;
					}
					const asked = (isCheck: boolean) =>
						lets(
							test,
							from.party,
							to.party,
							user.name,
							(rule) => rule.isCheck === isCheck,
						);
					const [accepts, checks] = [asked(false), asked(true)];
					const answer = {
						// A rule that checks goes first; whether that is accepted, the reference leaves open.
						accept: checks === "no" ? accepts : "unknown",
						check: checks,
						deny: any([accepts, checks]),
					}[wanted];
					if (answer === "unknown")
						tally.leave(
							user,
							`whether ${what} may log in is not to be told from the file alone`,
						);
					else if ((answer === "yes") === (wanted !== "deny")) tally.held += 1;
					else
						tally.fail(
							user,
							wanted === "deny"
								? `an ssh rule lets ${test.source} log in as ${user.name} on ${host.name}`
								: `no ssh rule of action ${wanted} lets ${test.source} log in as ${user.name} on ${host.name}`,
							wanted === "deny"
								? "narrow that rule, or take this out of deny"
								: `add such a rule, or take this out of ${wanted}`,
						);
				}
		}
	}
	return tally;
}

/** Whether one of them is so. */
function any(answers: readonly Answer[]): Answer {
	return answers.includes("yes")
		? "yes"
		: answers.includes("unknown")
			? "unknown"
			: "no";
}

/** Whether a rule's `users` let a source log in as a user. */
function takesUser(pattern: string, user: string, from: Party): Answer {
	if (pattern === "autogroup:nonroot") return user === "root" ? "no" : "yes";
	const domain = /^localpart:\*(@.+)$/.exec(pattern)?.[1];
	if (domain === undefined) return pattern === user ? "yes" : "no";
	if (from.sort !== "user") return from.sort === "tag" ? "no" : "unknown";
	if (isBareName(from.name)) return "unknown";
	return from.name === `${user}${domain}` ? "yes" : "no";
}

/** Whether a machine is one that the source's own user signed in on. */
function isOwn(from: Party, to: Party): Answer {
	if (from.sort === "tag" || to.sort === "tag") return "no";
	if (from.sort !== "user" || to.sort !== "user") return "unknown";
	return isSameUser(from.name, to.name);
}
