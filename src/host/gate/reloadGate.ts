const reload =
	"! systemctl is-active --quiet llamagate.service || systemctl reload llamagate.service";

/** Has the gate, where it runs, read its files anew. It fails where the gate refuses them. */
export const reloadGate = ["sh", "-c", reload];

/**
 * The same, and never fails: for what has to go on where the gate refuses, since a
 * later step mends what it refuses, or a file is put back as it was, which may be
 * one that the gate cannot read. What it has not taken is told by `gate.in-force`.
 */
export const offerReload = ["sh", "-c", `${reload} || :`];
