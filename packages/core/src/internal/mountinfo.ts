/** A mount, as far as taking it down needs to know it; proc_pid_mountinfo(5). */
export interface MountedAt {
  readonly id: string
  /** The mount that it is mounted on. */
  readonly parent: string
  /** `major:minor` of the filesystem. */
  readonly device: string
  readonly target: string
  readonly fstype: string
  readonly source: string
  /** The filesystem's own, which for an overlay names its layers. */
  readonly options: string
}

// Space, tab, newline and backslash are written in octal.
const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/gu, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** Reads a mountinfo, in its order. Lines that are none are left out. */
export const parseMountinfo = (text: string): ReadonlyArray<MountedAt> =>
  text.split("\n").flatMap((line) => {
    const [before = "", after] = line.split(" - ", 2)
    const [id = "", parent = "", device = "", , target] = before.split(" ")
    if (target === undefined || after === undefined) return []
    const [fstype = "", source = "", options = ""] = after.split(" ")
    return [
      {
        id,
        parent,
        device,
        target: unescape(target),
        fstype,
        source: unescape(source),
        options: unescape(options),
      },
    ]
  })
