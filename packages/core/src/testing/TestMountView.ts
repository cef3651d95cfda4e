/**
 * The mount table as people and programs read it: /proc/self/mountinfo
 * (proc_pid_mountinfo(5)) and rows for tests.
 */
import type { MountFlag } from "../Kernel.ts"
import type { Mount, MountTable, Propagation } from "./TestMounts.ts"

/** One mount that init can see. */
export interface MountEntry {
  readonly target: string
  readonly source: string
  readonly fstype: string
  /** In the order of mountinfo: `ro`, `nosuid`, `nodev`, `noexec`, `relatime`. */
  readonly flags: ReadonlyArray<string>
  /** The superblock's own options. */
  readonly options: string
  readonly propagation: Propagation
  /** What of the filesystem is mounted: `/`, or the directory that was bound. */
  readonly root: string
}

const names: Readonly<Partial<Record<MountFlag, string>>> = {
  MS_NOSUID: "nosuid",
  MS_NODEV: "nodev",
  MS_NOEXEC: "noexec",
  MS_NOATIME: "noatime",
  MS_RELATIME: "relatime",
}

const flagsOf = (mount: Mount): ReadonlyArray<string> => [
  mount.flags.has("MS_RDONLY") ? "ro" : "rw",
  ...Object.entries(names).flatMap(([flag, name]) => (mount.flags.has(flag as MountFlag) ? [name] : [])),
]

const rootOf = (mount: Mount): string => {
  const parts: Array<string> = []
  for (
    let inode = mount.root;
    inode.parent !== undefined && inode !== mount.filesystem.root;
    inode = inode.parent
  )
    parts.unshift(inode.name)
  return `/${parts.join("/")}`
}

/** The mounts that init can see, oldest first. */
export const entries = (table: MountTable): ReadonlyArray<MountEntry> =>
  table.mounts
    .filter((mount) => table.isVisible(mount))
    .map((mount) => ({
      target: table.pathOf({ mount, inode: mount.root }),
      source: mount.source,
      fstype: mount.filesystem.type,
      flags: flagsOf(mount),
      options: mount.filesystem.options,
      propagation: mount.propagation,
      root: rootOf(mount),
    }))

/** A line a mount: `/tmp tmpfs tmpfs rw,nosuid shared mode=1777`. */
export const toText = (table: MountTable): string =>
  entries(table)
    .map((entry) =>
      [entry.target, entry.source, entry.fstype, entry.flags.join(","), entry.propagation, entry.options]
        .join(" ")
        .trimEnd(),
    )
    .join("\n")

const escape = (text: string) =>
  text.replaceAll(/[ \t\n\\]/gu, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`)

/** The text of /proc/self/mountinfo. */
export const mountinfo = (table: MountTable): string =>
  table.mounts
    .filter((mount) => table.isVisible(mount))
    .map((mount) => {
      const superblock = [
        mount.filesystem.readOnly ? "ro" : "rw",
        ...(mount.filesystem.options === "" ? [] : [mount.filesystem.options]),
      ]
      const tag =
        mount.propagation === "shared"
          ? [`shared:${mount.group}`]
          : mount.propagation === "slave"
            ? [`master:${mount.group}`]
            : mount.propagation === "unbindable"
              ? ["unbindable"]
              : []
      return [
        mount.id,
        mount.parent?.id ?? 1,
        "0:1",
        escape(rootOf(mount)),
        escape(table.pathOf({ mount, inode: mount.root })),
        flagsOf(mount).join(","),
        ...tag,
        "-",
        mount.filesystem.type,
        escape(mount.source),
        superblock.join(","),
      ].join(" ")
    })
    .map((line) => `${line}\n`)
    .join("")
