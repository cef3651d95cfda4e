/**
 * The size budget: what each part of the image may take. A part that grows is
 * either worth it, and its budget is raised in the same change, or is not.
 */

/** `budget.json`. All sizes in bytes. */
export interface Budget {
  /** The EFI file. */
  readonly efi: number
  /** The initramfs, unpacked: it stays in RAM. */
  readonly unpacked: number
  readonly kernel: number
  /** Init's program, minified, before it becomes a snapshot. */
  readonly bundle: number
  /** Parts of the initramfs, unpacked, by the builder's names. */
  readonly parts: Readonly<Record<string, number>>
}

/** What of a build record is looked at. */
export interface Sizes {
  readonly bytes: number
  readonly initramfs: { readonly uncompressedBytes: number }
  readonly kernelBytes: number
  readonly parts: ReadonlyArray<{ readonly part: string; readonly bytes: number }>
}

const number = (bytes: number) => bytes.toLocaleString("en-US")

/** What is wrong with one size, or nothing. */
export const overrun = (name: string, bytes: number, budget: number): ReadonlyArray<string> =>
  bytes <= budget
    ? []
    : [
        `${name}: ${number(bytes)} bytes are ${number(bytes - budget)} (${(100 * (bytes / budget - 1)).toFixed(1)} %) over the budget of ${number(budget)}`,
      ]

/** One line for each size over its budget, each part without one, and each budget without a part. */
export const overruns = (sizes: Sizes, budget: Budget): ReadonlyArray<string> => {
  const names = new Set(sizes.parts.map(({ part }) => part))
  return [
    ...overrun("EFI", sizes.bytes, budget.efi),
    ...overrun("initramfs, unpacked", sizes.initramfs.uncompressedBytes, budget.unpacked),
    ...overrun("kernel", sizes.kernelBytes, budget.kernel),
    ...sizes.parts.flatMap(({ bytes, part }) => {
      const own = budget.parts[part]
      return own === undefined
        ? [`${part}: ${number(bytes)} bytes and no budget: add "${part}" to bench/budget.json`]
        : overrun(part, bytes, own)
    }),
    ...Object.keys(budget.parts)
      .filter((part) => !names.has(part))
      .map((part) => `${part}: has a budget and is not in the image: remove it from bench/budget.json`),
  ]
}
