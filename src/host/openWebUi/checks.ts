import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { nameOf, publishedPorts } from "../../system/docker.ts";
import { hasProgram } from "../../system/run.ts";
import { formatSocket, isLocalOnly } from "../../system/sockets.ts";
import { visible } from "../../visible.ts";
import { oldName, usualPort } from "./container.ts";
import {
	each,
	type Look,
	look,
	unidentified,
	type WebUi,
	type WebUiConfig,
} from "./facts.ts";
import { judgeFunnel, judgeHttps } from "./https.ts";

const setupStep = "sudo llamagate setup --only open-webui";

function judgeLoopback(found: readonly WebUi[], seen: Look): Outcome {
	const open = found.flatMap(({ name, sockets, published, configs }) => {
		const wide = sockets.filter((socket) => !isLocalOnly(socket));
		return wide.length === 0 && published.length === 0
			? []
			: {
					isUnguarded: configs.some(({ features }) => features.auth === false),
					says: [
						...wide.map((socket) => `${formatSocket(socket)} listens`),
						...published.map((place) => `Docker publishes ${name} on ${place}`),
					],
				};
	});
	if (open.length > 0)
		return finding(
			open.flatMap(({ says }) => says),
			open.some(({ isUnguarded }) => isUnguarded)
				? { severity: "critical" }
				: {},
		);
	if (seen.strangers.length > 0) return unidentified(seen);
	return ok(
		...found.map(({ name, port, sockets }) =>
			port === undefined
				? `${name} publishes no port`
				: `${name}: ${sockets.map(formatSocket).join(", ") || `port ${port}`}`,
		),
	);
}

function judgeAnswers(found: readonly WebUi[]): Outcome {
	const silent = found.filter(({ isSilent }) => isSilent);
	return silent.length > 0
		? finding(
				silent.map(({ name, port }) => `${name} does not answer on ${port}`),
				{ fix: `docker logs ${silent[0]?.name}` },
			)
		: ok(
				...found.map(
					({ name, configs: [config] }) =>
						`${name}: version ${visible(config?.version ?? "not told")}`,
				),
			);
}

/** Each thing that one of them told of itself. */
function told(
	found: readonly WebUi[],
): { readonly name: string; readonly config: WebUiConfig }[] {
	return found.flatMap(({ name, configs }) =>
		configs.map((config) => ({ name, config })),
	);
}

/** Why what was told is not all, or `undefined` where it is. */
function silence(found: readonly WebUi[], seen: Look): Outcome | undefined {
	if (found.some(({ configs, isSilent }) => isSilent || configs.length === 0))
		return unknown("it does not answer, so it was not to be seen");
	return seen.strangers.length > 0 ? unidentified(seen) : undefined;
}

function judgeAuth(found: readonly WebUi[], seen: Look): Outcome {
	const open = told(found).filter(
		({ config }) => config.features.auth !== true,
	);
	if (open.length > 0)
		return finding(
			unique(
				open.map(
					({ name }) =>
						`${name} asks nobody to log in (features.auth is false in /api/config)`,
				),
			),
		);
	return silence(found, seen) ?? ok("/api/config has features.auth");
}

function judgeSignup(found: readonly WebUi[], seen: Look): Outcome {
	const open = told(found).filter(
		({ config }) =>
			config.onboarding === true ||
			(config.features.auth === true && config.features.enable_signup === true),
	);
	if (open.length > 0)
		return finding(
			unique(
				open.map(({ name, config }) =>
					config.onboarding === true
						? `${name} has no account yet: anyone who opens it first is made its administrator`
						: `${name} lets anyone who opens it make an account (features.enable_signup in /api/config)`,
				),
			),
		);
	return (
		silence(found, seen) ??
		(told(found).every(({ config }) => !config.features.auth)
			? absent("found no accounts (see open-webui.auth)")
			: ok("/api/config has no features.enable_signup"))
	);
}

async function judgePredecessors(patient: Patient): Promise<Outcome> {
	const { containers: all } = await look(patient);
	if (all === undefined)
		return (await hasProgram("docker"))
			? unknown(
					"Docker does not run here or does not answer, so what its next start brings back is not to be seen; see: sudo docker ps -a",
				)
			: absent("Docker is not installed");
	const old = all.filter((container) =>
		nameOf(container).endsWith(oldName("")),
	);
	if (old.length === 0) return absent("found no container from before setup");
	const returning = old.filter(
		({ State, HostConfig: { RestartPolicy } }) =>
			State.Running || !["", "no"].includes(RestartPolicy.Name),
	);
	return returning.length === 0
		? ok(`${old.map(nameOf).join(", ")} is stopped and stays so`)
		: finding(
				returning.map(
					(container) =>
						`${nameOf(container)} ${container.State.Running ? "runs" : "is stopped"}, its restart policy is ${container.HostConfig.RestartPolicy.Name || "no"}, and it publishes ${
							publishedPorts(container)
								.map(({ hostAddress, hostPort }) =>
									formatHostPort(hostAddress, hostPort),
								)
								.join(", ") || "nothing"
						}`,
				),
				{
					fix: returning
						.map(nameOf)
						.map(
							(name) =>
								`sudo docker update --restart=no ${name} && sudo docker stop ${name}`,
						)
						.join(" && "),
				},
			);
}

function judgeOthers(found: readonly WebUi[]): Outcome {
	return found.length === 1
		? ok(`${found[0]?.name} is the only one`)
		: finding(
				found.map(
					({ name, port }) =>
						`${name}${port === undefined ? "" : ` on ${port}`}`,
				),
			);
}

const common = { group: "open-webui", layer: "open-webui" } as const;

/** Whether Open WebUI is reached by those who are to, and asks who they are. */
export const openWebUiExaminations: readonly Examination[] = [
	{
		...common,
		id: "open-webui.loopback",
		title: "Open WebUI listens on loopback only",
		severity: "high",
		why: "What it shows goes over the LAN in the clear, and a port that Docker publishes goes around UFW.",
		fix: setupStep,
		step: "open-webui",
		examine: (patient) => each(patient, judgeLoopback),
	},
	{
		...common,
		id: "open-webui.answers",
		title: "Open WebUI answers",
		severity: "warn",
		why: "What does not answer cannot be looked at, and cannot be used.",
		fix: "docker logs open-webui",
		examine: (patient) => each(patient, judgeAnswers),
	},
	{
		...common,
		id: "open-webui.auth",
		title: "Open WebUI asks who one is",
		severity: "high",
		why: "Without accounts anyone who opens the page uses every model and reads every chat.",
		fix: "start Open WebUI without WEBUI_AUTH=False",
		examine: (patient) => each(patient, judgeAuth),
	},
	{
		...common,
		id: "open-webui.signup",
		title: "Nobody makes themselves an account in Open WebUI",
		severity: "warn",
		why: "The first account is the administrator's, and with sign-up on any device of the tailnet can ask for another.",
		fix: "make your account, then turn off Admin Panel > Settings > General > Enable New Sign Ups",
		examine: (patient) => each(patient, judgeSignup),
	},
	{
		...common,
		id: "open-webui.https",
		title: "Tailscale Serve leads to Open WebUI by HTTPS",
		severity: "warn",
		why: "On loopback it is reached from other devices that way alone, and a browser wants a certificate for the microphone and the clipboard.",
		fix: `sudo tailscale serve --bg ${usualPort}`,
		step: "open-webui",
		examine: (patient) => each(patient, judgeHttps),
	},
	{
		...common,
		id: "open-webui.funnel",
		title: "Open WebUI is not on the internet",
		severity: "critical",
		why: "Tailscale Funnel opens its login page to everybody, past every firewall.",
		fix: `sudo tailscale serve --bg ${usualPort}`,
		examine: (patient) => each(patient, judgeFunnel),
	},
	{
		...common,
		id: "open-webui.predecessor",
		title: "The container from before setup stays stopped",
		severity: "high",
		why: "Setup keeps it for undo; with a restart policy it comes back with Docker's next start, as open as it was.",
		fix: "sudo docker update --restart=no open-webui-before-llamagate",
		needsRoot: true,
		examine: judgePredecessors,
	},
	{
		...common,
		id: "open-webui.others",
		title: "There is one Open WebUI",
		severity: "info",
		why: "A second one has accounts and settings of its own, and is easily forgotten.",
		fix: "sudo docker ps",
		examine: (patient) => each(patient, judgeOthers),
	},
];
