/** Has the gate, where it runs, read its files anew. */
export const reloadGate = [
	"sh",
	"-c",
	"! systemctl is-active --quiet llamagate.service || systemctl reload llamagate.service",
];
