/** The EFI of tests that look at something else than the system's pods. */
export const leanFile = "kios-lean.efi"

/** What it lacks: the pods that take an emulated machine half a minute of each boot. */
export const spared = ["dhcp", "ntp", "node-logs"] as const
