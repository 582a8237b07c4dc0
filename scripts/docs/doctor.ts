import { lastResultFile } from "../../src/doctor/lastResult.ts";
import { exitCodes } from "../../src/errors.ts";
import { examinations } from "../../src/host/checks.ts";
import { layerNames } from "../../src/report/picture.ts";

/** docs/doctor.md: how doctor is used, and every check that it makes. */
export function renderDoctor(made: string): string {
	const groups = [...new Set(examinations.map(({ group }) => group))];
	const tables = groups.map((group) => {
		const rows = examinations
			.filter((one) => one.group === group)
			.map(({ id, layer, severity, title, why, step, needsRoot }) =>
				row([
					`\`${id}\``,
					severity,
					title,
					why,
					layerNames[layer],
					step === undefined ? "" : `\`${step}\``,
					needsRoot ? "yes" : "",
				]),
			);
		return `### ${group}

| id | severity | what should be so | why it matters | layer | mended by setup's step | needs root |
|---|---|---|---|---|---|---|
${rows.join("\n")}
`;
	});
	return `# llamagate doctor

${made}

\`doctor\` looks at a host from the inside: whether it is closed, and the gate open
to the right people only. It looks at what is in force (sockets, the kernel's rules,
what services answer, real requests), not at what files say, and changes nothing.
\`llamagate probe\` looks from another device.

\`\`\`sh
sudo llamagate doctor                             # everything, worst first
llamagate doctor --list                           # the checks that there are
sudo llamagate doctor --only sshd --only boot     # some groups or checks
sudo llamagate doctor --explain ollama.listening  # all about one
sudo llamagate doctor --fix ollama.listening      # the step of setup that mends it; it asks first
sudo llamagate doctor --watch --every 30s         # go on looking, and say what changes
sudo llamagate doctor --html doctor.html          # a page to keep
sudo llamagate doctor --json                      # for programs: report.schema.json
\`\`\`

Each finding names the command that mends it, and what could not be seen how to find
out, where that is known; what is unknown for one reason stands together. Think before you pass a report on: it
says where a host is weak.

## What an answer means

| answer | meaning |
|---|---|
| in order | seen to be so |
| critical | seen not to be so, and it lets others in |
| high | a layer of the defence is missing, or the gate cannot do its work |
| warning | worth a look |
| info | to know; it may be as you want it |
| unknown | it could not be seen, and why: no root, a program that is missing, output that was not understood. It may be in order or not, and is never counted as in order |
| not here | what it asks about is not on this host |

Without root a part is unknown; the first line says how many checks need it. A severity in the table is the usual one; what was
seen can make it milder or worse, and the report says so. While a service is being
started, reloaded or stopped, \`doctor\` waits for it, up to 20 seconds.

What listens for others is asked whether it answers as Ollama, by plain HTTP and, where
that may be a port for TLS, over TLS, whoever's certificate it has. It is asked by its
address: a proxy that chooses by name may show it another site, and one that answers to
names alone makes \`ollama.listening\` and \`ollama.reachable\` unknown. There ask from
outside, by the name: [\`llamagate probe --public NAME\`](probe.md#the-public-address).

| exit code | meaning |
|---|---|
| ${exitCodes.ok} | nothing above warning was found; with \`--changes\`, it looked |
| ${exitCodes.finding} | a critical or high finding; with \`--changes\`, it could not look or keep the result |
| ${exitCodes.usage} | the command line is wrong |

Unknown does not change the exit code. Programs that want to know look at
\`results[].state\` in \`--json\`.

## Every day

Setup's step \`gate\` enables \`llamagate-doctor.timer\`. Once a day, at a time of its
own, it runs \`llamagate doctor --changes\`, which compares what it finds with the last
result in \`${lastResultFile}\` (root's, 0600) and logs a line for each check
whose answer is another one. Where nothing has changed it is silent.

\`\`\`sh
journalctl -u llamagate-doctor -o cat          # what changed
journalctl -u llamagate-doctor -p err          # of that, what is critical or high now
systemctl list-timers llamagate-doctor.timer   # when it looks next
sudo llamagate doctor --changes                # now
sudo llamagate status                          # the gate's own word, and the last result with its age
\`\`\`

\`\`\`
tailscale.funnel: was in order, is critical: the internet reaches … | to do: sudo tailscale funnel --https=443 off
\`\`\`

A finding that is critical or high is told of again when something is added to it.
The others are told of once: their evidence may be a number that differs every day.
The run ends with 0 whatever it finds, so a failed \`llamagate-doctor.service\` means
that it could not look.

\`llamagate status\` ends with 1 where that result has a critical or high finding, where
it is more than two days old, since the daily look has stopped then, and where it is
damaged. That there was no look yet is no fault.

## The checks

${tables.join("\n")}`;
}

function row(cells: readonly string[]): string {
	return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}
