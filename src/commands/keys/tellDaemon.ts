import { askDaemon, readAnswer } from "../../admin/client.ts";
import type { Places } from "../../admin/places.ts";
import { exitCodes } from "../../errors.ts";
import type { ReloadResult } from "../../gate/reload.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { formatJsonLine } from "../../report/json.ts";
import { visible } from "../../visible.ts";
import {
	isHeldBySystemdAlone,
	listenAddresses,
	whoListens,
} from "../whoListens.ts";
import { say } from "./action.ts";

/** Where the running gate is asked, and where it would listen. */
export type Daemon = Pick<Places, "adminSocket" | "listen">;

interface Outcome {
	/** As `--json` has it: it was told, there is none, or it goes on with its old keys. */
	readonly daemon: "told" | "none" | "untold";
	readonly says: string;
	readonly code: number;
}

/** What reaches a gate that has no admin socket; `systemctl reload` asks over that. */
const signal =
	"send it a SIGHUP: sudo systemctl kill -s HUP --kill-who=main llamagate";

/**
 * Tells the running daemon, if there is one, and the user how that went.
 *
 * @param facts of what was changed, which are printed as JSON with what became of that
 * @param unlessTold what is still to be done where no daemon has taken it over
 * @returns the exit code: 1 where a gate seems to run and goes on with its old keys
 */
export async function tellDaemon(
	place: Daemon,
	facts?: object,
	unlessTold?: () => Promise<void>,
): Promise<number> {
	const { daemon, says, code } = await tell(place);
	if (facts !== undefined)
		process.stdout.write(formatJsonLine({ ...facts, daemon }));
	say(visible(says));
	if (daemon !== "told") await unlessTold?.();
	return code;
}

async function tell({ adminSocket, listen }: Daemon): Promise<Outcome> {
	if (adminSocket === undefined)
		return tellNobody(
			"the admin socket is off (admin.socket)",
			listen,
			async () => undefined,
		);
	const answer = await ask(adminSocket);
	return isNobody(answer)
		? tellNobody(
				`no gate answers on ${adminSocket} (${answer.code})`,
				listen,
				async () => {
					const again = await ask(adminSocket);
					return isNobody(again) ? undefined : outcomeOf(again);
				},
			)
		: outcomeOf(answer);
}

/**
 * What became of a change of which no gate was told.
 *
 * @param why none was
 * @param tryAgain what a gate says after all that was seen to run
 */
async function tellNobody(
	why: string,
	listen: Daemon["listen"],
	tryAgain: () => Promise<Outcome | undefined>,
): Promise<Outcome> {
	if (listen === undefined)
		return untold(
			`${capital(why)}, and where a gate would listen is not known. If one runs, it goes on with its old keys; ${signal}`,
		);
	const there = await findGate(listen);
	if (there === undefined)
		return {
			daemon: "none",
			says: `${capital(why)}, and none is seen to listen, so there is none to tell.`,
			code: exitCodes.ok,
		};
	// systemd may have started one for that very look.
	return (
		(await tryAgain()) ??
		untold(
			`${there}, for ${why}. It goes on with its old keys; ${signal} (or kill -HUP PID)`,
		)
	);
}

type Answer = Awaited<ReturnType<typeof askDaemon>>;

async function ask(socket: string): Promise<Answer> {
	const answer = await askDaemon(socket, "POST /reload/keys");
	// The daemon of a version before this.
	return answer.status === 404 ? askDaemon(socket, "POST /reload") : answer;
}

function isNobody({ code }: Answer): boolean {
	return code === "ENOENT" || code === "ECONNREFUSED";
}

/** The beginning of a sentence about a gate that runs, or may; `undefined` if none does. */
async function findGate(
	listen: NonNullable<Daemon["listen"]>,
): Promise<string | undefined> {
	for (const address of listenAddresses(listen)) {
		const where = formatHostPort(address, listen.port);
		const holder = await whoListens(address, listen.port);
		if (holder.kind === "gate")
			return `A gate seems to run on ${where} and could NOT be told`;
		if (
			holder.kind === "other" &&
			!(await isHeldBySystemdAlone(address, listen.port))
		)
			return `${where} is taken by ${holder.says}. If that is a gate, it could NOT be told`;
	}
	return undefined;
}

function outcomeOf({ status, code, body }: Answer): Outcome {
	if (code !== undefined)
		return untold(
			`The running daemon could not be told (${code}); ${code === "EACCES" ? "use sudo, or " : ""}tell it: sudo systemctl reload llamagate`,
		);
	if (status === 200)
		return {
			daemon: "told",
			says: "The running daemon has taken it over.",
			code: exitCodes.ok,
		};
	// Whatever answers in its place has said neither.
	const result = readAnswer<ReloadResult>(body, () => true);
	if (result?.keys !== undefined)
		return {
			daemon: "told",
			says: "The running daemon has taken the keys over, with its old settings.",
			code: exitCodes.ok,
		};
	const hasLeftGoneOut = result?.ok === false && result.gone !== undefined;
	const keeps = hasLeftGoneOut
		? "has only taken out of force what is gone from the keys file"
		: "keeps its old keys";
	return untold(
		`The running daemon refused to reload and ${keeps}: ${body.trim()}\nMend that, then: sudo systemctl reload llamagate`,
	);
}

function untold(says: string): Outcome {
	return { daemon: "untold", says, code: exitCodes.finding };
}

function capital(text: string): string {
	return text.charAt(0).toUpperCase() + text.slice(1);
}
