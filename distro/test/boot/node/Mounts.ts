/** Every mount of the host, flag by flag, against the table that made it; and what pods mount for the host. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as DataPartition from "@kios/stages-mount/DataPartition"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import type { MountRow } from "@kios/stages-mount/MountTable"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import { eventuallyAssert, hostProcesses, Node, staticPod } from "../support.ts"

type Row = Omit<MountRow, "why" | "reference">

/** What must be mounted on a node with a data partition, and nothing else. */
const table: ReadonlyArray<Row> = [
  ...RootSwitch.mounts,
  ...PseudoFilesystems.mounts,
  ...EphemeralFilesystems.mounts,
  ...Cgroups.mounts,
  ...DataPartition.mounts,
  ...EtcOverlay.mounts,
].filter((row) => !("when" in row) || row.when !== "no-data-partition")

/** Where the runtime and the kubelet mount what belongs to pods. */
// The last is where the data partition has /var/lib/kubelet: binds of one filesystem share what is mounted below them.
const podMounts = [
  "/run/containerd/",
  "/var/lib/containerd/",
  "/var/lib/kubelet/",
  "/run/netns/",
  "/run/kios/data/data/pods/pods/",
]

/** A mount, as the kernel shows it. */
interface Mount {
  readonly target: string
  /** What of its filesystem is mounted. */
  readonly root: string
  readonly fstype: string
  /** The mount's own, sorted. */
  readonly flags: string
  readonly shared: boolean
  /** The filesystem's, sorted. */
  readonly options: ReadonlyArray<string>
}

/** One line of proc_pid_mountinfo(5). */
const parseMount = (line: string): Mount => {
  const [before = "", after = ""] = line.split(" - ")
  const [, , , root = "", target = "", flags = "", ...optional] = before.split(" ")
  const [fstype = "", , options = ""] = after.split(" ")
  return {
    target,
    root,
    fstype,
    flags: flags.split(",").toSorted().join(","),
    shared: optional.length === 1 && /^shared:\d+$/u.test(optional[0] ?? ""),
    options: options.split(",").toSorted(),
  }
}

/** Every flag that mountinfo shows of this row: the absence of one counts as well. */
const flagsOf = ({ flags }: Row): string => {
  const shown = flags
    .filter((flag) => flag !== "MS_BIND" && flag !== "MS_RDONLY")
    .map((flag) => flag.slice("MS_".length).toLowerCase())
  if (!shown.includes("noatime") && !shown.includes("relatime")) shown.push("relatime")
  return [flags.includes("MS_RDONLY") ? "ro" : "rw", ...shown].toSorted().join(",")
}

const units: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }
const numberOf = (text: string): number => {
  const [, digits, unit = ""] = /^(\d+)([kmg]?)$/iu.exec(text) ?? []
  return Number(digits) * (units[unit.toLowerCase()] ?? Number.NaN)
}

/** An option as the kernel shows it, in pages of the memory that it counts. */
const optionOf = (option: string, memoryKiB: number): string => {
  const [key = "", value = ""] = option.split("=")
  if (key === "size" && value.endsWith("%"))
    return `size=${Math.ceil(((memoryKiB / 4) * Number.parseInt(value, 10)) / 100) * 4}k`
  if (key === "size") return `size=${numberOf(value) / 1024}k`
  if (key === "nr_inodes") return `nr_inodes=${numberOf(value)}`
  // Octal, without leading zeros; none at all is 0, but for ptmxmode, which devpts prints with three digits.
  if (key === "mode") return `mode=${value.replace(/^0+/u, "")}`
  if (key === "ptmxmode") return `ptmxmode=${value.slice(-3)}`
  return option
}

/** What tmpfs does not show, because it is its default: half of the memory, in whole pages (shmem_show_options in mm/shmem.c). */
const defaultSize = (memoryKiB: number): string => `size=${Math.floor(memoryKiB / 8) * 4}k`

/** What the kernel shows though nobody asked for it, or does not show though somebody did. */
const silent: Readonly<Record<string, ReadonlyArray<string>>> = {
  tmpfs: ["inode64", "mode=1777"],
  devtmpfs: ["inode64"],
  overlay: ["uuid=on"],
  tracefs: ["mode=700"],
}

/** A bind shows the options of the filesystem that it is of. */
const boundFrom = ({ flags, source }: Row): Row | undefined =>
  flags.includes("MS_BIND")
    ? table.find(({ target }) => target === DataPartition.MOUNT_POINT && source.startsWith(`${target}/`))
    : undefined

const optionsOf = (row: Row, memoryKiB: number): ReadonlyArray<string> =>
  (boundFrom(row)?.options ?? row.options ?? "")
    .split(",")
    .filter((option) => option !== "")
    .map((option) => optionOf(option, memoryKiB))
    .filter((option) => row.fstype !== "tmpfs" || option !== defaultSize(memoryKiB))
    .filter((option) => !(silent[row.fstype] ?? []).includes(option))
    .toSorted()

const shownOptions = (mount: Mount): ReadonlyArray<string> =>
  mount.options.filter(
    (option) => option !== "rw" && option !== "ro" && !(silent[mount.fstype] ?? []).includes(option),
  )

/** Where a bind comes from: the data partition, or the image. */
const placeOf = (row: Row): Pick<Mount, "fstype" | "root"> => {
  if (!row.flags.includes("MS_BIND")) return { fstype: row.fstype, root: "/" }
  const inData = row.source.startsWith(`${DataPartition.MOUNT_POINT}/`)
  return inData
    ? { fstype: "ext4", root: row.source.slice(DataPartition.MOUNT_POINT.length) }
    : { fstype: "rootfs", root: row.source }
}

const bidirectional = "/run/bidirectional"
const bidirectionalManifest = "/host/etc/kubernetes/manifests/bidirectional.json"

/** A privileged pod that mounts something for everybody. */
const bidirectionalPod = staticPod(
  "default",
  "bidirectional",
  {
    command: [
      "/bin/sh",
      "-c",
      "mkdir -p /shared/in && mount -t tmpfs -o nosuid,nodev,noexec,size=64k bidirectional /shared/in && exec sleep 1000000",
    ],
    securityContext: { privileged: true },
    volumeMounts: [{ name: "shared", mountPath: "/shared", mountPropagation: "Bidirectional" }],
  },
  [{ name: "shared", hostPath: { path: bidirectional, type: "DirectoryOrCreate" } }],
)

export const mounts = (it: Vitest.MethodsNonLive<Node>) => {
  const hostMounts = Effect.gen(function* () {
    const { lines } = yield* Node
    return (yield* lines("cat /proc/1/mountinfo"))
      .map(parseMount)
      .filter(({ target }) => !podMounts.some((prefix) => target.startsWith(prefix)))
  })

  it.effect("every mount is its row of the table, flag by flag, and there is no other one", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const [memory = ""] = yield* lines("grep '^MemTotal:' /proc/meminfo")
      const memoryKiB = Number(/\d+/u.exec(memory)?.[0])
      const found = yield* hostMounts
      assert.deepStrictEqual(
        found.map(({ target }) => target).toSorted(),
        table.map(({ target }) => target).toSorted(),
        "each target once",
      )
      assert.deepStrictEqual(
        found.map(({ flags, fstype, root, shared, target }) => ({ target, fstype, root, flags, shared })),
        found.flatMap(({ target }) =>
          table
            .filter((row) => row.target === target)
            .map((row) => ({ target, ...placeOf(row), flags: flagsOf(row), shared: true })),
        ),
      )
      for (const mount of found) {
        const row = table.find(({ target }) => target === mount.target)
        const wanted = row === undefined ? [] : optionsOf(row, memoryKiB)
        // ext4 shows defaults of its own and of its superblock.
        if (mount.fstype === "ext4") assert.includeMembers([...mount.options], [...wanted], mount.target)
        else assert.deepStrictEqual(shownOptions(mount), wanted, mount.target)
      }
      // The filesystems too, not only their mounts: runc makes a volume's mount writable again.
      for (const { target } of RootSwitch.mounts)
        assert.include(found.find((mount) => mount.target === target)?.options ?? [], "ro", target)
    }),
  )

  it.effect("the memory of image archives has come back", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      assert.deepStrictEqual(yield* lines("ls -A /host/lib/kios/images"), [])
      // The figures differ by what else happens at that time; that there are two is what can be asserted.
      const told = yield* lines("dmesg | grep 'image archives'")
      assert.strictEqual(told.length, 1, told.join("\n"))
      assert.match(told[0] ?? "", /released 2 image archives, MemAvailable \d+ -> \d+ kB/u)
    }),
  )

  it.effect("a mount that a pod makes with Bidirectional propagation is the host's", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const shims = Effect.map(
        hostProcesses,
        (list) => list.filter(({ exe }) => exe === "/bin/containerd-shim-runc-v2").length,
      )
      const before = yield* shims
      yield* lines(`cat >${bidirectionalManifest} <<'END'\n${bidirectionalPod}\nEND`)
      yield* eventuallyAssert(
        "the pod's mount in the host's table",
        hostMounts,
        (found) =>
          assert.deepStrictEqual(
            found
              .filter(({ target }) => target.startsWith(bidirectional))
              .map(({ flags, fstype, options, target }) => ({ target, fstype, flags, options })),
            [
              {
                target: `${bidirectional}/in`,
                fstype: "tmpfs",
                flags: "nodev,noexec,nosuid,relatime,rw",
                options: ["inode64", "rw", "size=64k"],
              },
            ],
          ),
        240,
      )
      yield* lines(`rm ${bidirectionalManifest}`)
      yield* eventuallyAssert(
        "the pod's shim is gone",
        shims,
        (count) => assert.strictEqual(count, before),
        240,
      )
      yield* lines(`nsenter -t 1 -m /bin/umount ${bidirectional}/in`)
    }),
  )
}
