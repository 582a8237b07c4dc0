/** What the printed policy is made from. */
export interface PolicyChoices {
	readonly serverTag: string;
	readonly clientTag: string;
	/** Who owns the tags, and with `ssh` may log in on the server; nobody if absent, which is for headscale alone. */
	readonly admin: string | undefined;
	/** Whether to let `admin` in on port 22 by Tailscale SSH. */
	readonly ssh: boolean;
	/** The control server that is to take the policy. */
	readonly control: Control;
}

/** Control servers, which do not take the same policies. */
export const controls = ["tailscale", "headscale"] as const;
export type Control = (typeof controls)[number];

export const defaultChoices = {
	serverTag: "tag:ai-server",
	clientTag: "tag:client",
	admin: "autogroup:admin",
	ssh: false,
	control: "tailscale",
} as const satisfies PolicyChoices;

/** Whether Tailscale takes a text for a tag (tailcfg.CheckTag). */
export function isTag(text: string): boolean {
	return /^tag:[A-Za-z][A-Za-z0-9-]*$/.test(text);
}

/** Whether a text names people who may own the tags: a role that manages the tailnet, or a user's login. */
export function isAdmin(text: string): boolean {
	return (
		/^autogroup:(owner|admin|network-admin|it-admin)$/.test(text) ||
		/^[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9.-]+$/.test(text)
	);
}

/**
 * Whether headscale takes a text for a user who may own tags: it has no roles,
 * and a user without an e-mail address is written with an @ behind the name.
 */
export function isHeadscaleAdmin(text: string): boolean {
	return /^[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9.-]*$/.test(text);
}

/** What is at the head of the policy: how to put it in force. */
function explain({
	control,
	serverTag,
	clientTag,
	admin,
}: PolicyChoices): string {
	if (control === "tailscale")
		return `//
// Paste it into the admin console, under Access controls, before you tag a
// device: a tag must stand in tagOwners first. Then, on the server:
//   sudo tailscale up --advertise-tags=${serverTag}
// and tag its clients on the Machines page.
//`;
	const tagging = `//   headscale nodes tag --identifier ID --tags ${serverTag}
//   headscale nodes tag --identifier ID --tags ${clientTag}`;
	return `//
// Try it with: headscale policy check --file FILE
// Put it in force with: headscale policy set --file FILE
// or, where policy.mode is "file", at policy.path, and reload headscale.
// Then tag the server and its clients; headscale nodes list shows the IDs:
${tagging}${
	admin === undefined
		? `
// Nobody owns the tags, so only headscale's own command gives them out.`
		: ""
}
//`;
}

/**
 * A whole tailnet policy, in HuJSON with comments: clients reach the gate and
 * HTTPS on the server, and nothing else is granted. `judgePolicy` has nothing
 * to say against it, but that headscale's has its tests in a comment: headscale
 * fails a test while no node has the tag that it names.
 *
 * The names must have passed `isTag` and `isAdmin` or `isHeadscaleAdmin`: they
 * go into comments, too.
 *
 * Source: tailscale.com/docs/reference/syntax/grants and …/policy-file; that a
 * test takes one source, and one port a destination, is what Tailscale's own
 * answers show (headscale, hscontrol/policy/v2/testdata/policytest_results).
 * What headscale takes: headscale 0.29.0, `headscale policy check`.
 */
export function recommendPolicy(choices: PolicyChoices): string {
	const { serverTag, clientTag, admin, ssh, control } = choices;
	const owners = admin === undefined ? "" : `"${admin}"`;
	const sshGrant = `
		// Tailscale SSH needs both this and the rule under "ssh". It knows people, so
		// it is for devices that ${admin} signed in on: a device that carries a tag
		// belongs to nobody and does not match.
		{
			"src": [${owners}],
			"dst": ["${serverTag}"],
			"ip": ["tcp:22"],
		},`;
	const sshRules = `
	"ssh": [
		// As any user but root. "check" in place of "accept" asks people to sign in again.
		{
			"action": "accept",
			"src": [${owners}],
			"dst": ["${serverTag}"],
			"users": ["autogroup:nonroot"],
		},
	],
`;
	const tests = `	"tests": [
		{
			"src": "${clientTag}",
			"accept": ["${serverTag}:11434", "${serverTag}:443"],
			// Open WebUI without HTTPS, other web pages, SSH.
			"deny": ["${serverTag}:8080", "${serverTag}:3000", "${serverTag}:22"],
		},
		{
			"src": "${serverTag}",
			"deny": ["${clientTag}:22", "${clientTag}:443", "${clientTag}:11434"],
		},
	],${
		ssh
			? `

	"sshTests": [
		{
			"src": "${clientTag}",
			"dst": ["${serverTag}"],
			"deny": ["root"],
		},
	],`
			: ""
	}`;
	return `// A tailnet policy for one Ollama server behind llamagate.
// Written by: llamagate policy print${control === "tailscale" ? "" : ` --for ${control}`}
${explain(choices)}
// Grants only add to each other, and nothing denies: what no grant allows is
// refused, and what one grant allows no other takes back. So the rule that every
// new tailnet has, from "*" to "*", must go. Do not drop the whole section
// instead: with neither "grants" nor "acls" ${control === "tailscale" ? "Tailscale" : "headscale"} lets everything through.
// Grants for your other machines can stay beside these, as long as neither their
// src nor their dst is "*". Try it: llamagate policy check FILE
{
	"tagOwners": {
		// Who may put the tag on a device. Anyone who can is a client, so keep it narrow.
		"${serverTag}": [${owners}],
		"${clientTag}": [${owners}],
	},

	"grants": [
		// 11434 is the gate, 443 is tailscale serve (Open WebUI over HTTPS).
		{
			"src": ["${clientTag}"],
			"dst": ["${serverTag}"],
			"ip": ["tcp:11434", "tcp:443"],
		},${ssh ? sshGrant : ""}
		// No grant has ${serverTag} as its src: the server answers and opens nothing.
		// No grant has people or "*" as its src${ssh ? " but for SSH" : ""}: an untagged device gets nothing.
	],
${ssh ? sshRules : ""}
${
	control === "tailscale"
		? `	// Tailscale runs these at every save and refuses a policy that fails one.
${tests}`
		: `	// headscale runs these at every save and refuses a policy that fails one. It
	// fails a test while no node has its tag, so tag the server and a client, then
	// take the marks off and put the policy in force again.
${tests.replace(/^/gm, "	//").replaceAll("	//	", "	// ")}`
}
}
`;
}
