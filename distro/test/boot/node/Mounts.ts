/** Every mount of the host with its flags, against the tables that made it. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as DataPartition from "@kios/stages-mount/DataPartition"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import type { MountRow } from "@kios/stages-mount/MountTable"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import { Node } from "../support.ts"

/** `FSTYPE FLAGS`: the flags that restrict, in order. */
type Described = string

const restricting = ["ro", "nosuid", "nodev", "noexec"] as const
const describe = (fstype: string, flags: ReadonlyArray<string>): Described =>
  [fstype, ...restricting.filter((flag) => flags.includes(flag))].join(" ")

const ofRow = ({ flags, fstype, target }: MountRow): readonly [string, Described] => [
  target,
  describe(
    fstype,
    flags.map((flag) => (flag === "MS_RDONLY" ? "ro" : flag.slice("MS_".length).toLowerCase())),
  ),
]

/** What must be mounted on a node with a data partition, and nothing else. */
const expected: Readonly<Record<string, Described>> = Object.fromEntries<Described>([
  ["/", "tmpfs ro nosuid nodev noexec"],
  ...RootSwitch.reference.keep.map((target) => [target, "rootfs ro nosuid nodev"] as const),
  ...[...PseudoFilesystems.mounts, ...EphemeralFilesystems.mounts, ...Cgroups.mounts].map(ofRow),
  [DataPartition.MOUNT_POINT, "ext4 nosuid nodev"],
  ...DataPartition.directories.map(([, target]) => [target, "ext4 nosuid nodev"] as const),
  ["/etc", "overlay nosuid nodev noexec"],
])

/** Where the runtime and the kubelet mount what belongs to pods. */
const podMounts = ["/run/containerd/", "/var/lib/containerd/", "/var/lib/kubelet/", "/run/netns/"]

interface Mount {
  readonly target: string
  readonly described: Described
  readonly options: ReadonlyArray<string>
}

/** One line of proc_pid_mountinfo(5). */
const parseMount = (line: string): Mount => {
  const [before = "", after = ""] = line.split(" - ")
  const [, , , , target = "", flags = ""] = before.split(" ")
  const [fstype = "", , options = ""] = after.split(" ")
  return { target, described: describe(fstype, flags.split(",")), options: options.split(",") }
}

export const mounts = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("every mount has the flags of its table, and there is no other one", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const found = (yield* lines("cat /proc/1/mountinfo"))
        .map(parseMount)
        .filter(({ target }) => !podMounts.some((prefix) => target.startsWith(prefix)))
      assert.deepStrictEqual(
        Object.fromEntries(found.map(({ described, target }) => [target, described])),
        expected,
      )
      assert.strictEqual(found.length, Object.keys(expected).length, "a target is mounted twice")
      // The filesystems too, not only their mounts: runc makes a volume's mount writable again.
      for (const target of ["/", ...RootSwitch.reference.keep])
        assert.strictEqual(found.find((mount) => mount.target === target)?.options[0], "ro", target)
      const etc = found.find(({ target }) => target === "/etc")
      assert.includeMembers([...(etc?.options ?? [])], ["upperdir=/run/kios/data/meta/etc"])
    }),
  )
}
