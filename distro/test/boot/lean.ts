/** Name of the EFI in dist/ that `leanEfi` of support.ts builds. */
export const leanFile = "kios-lean.efi"
