/**
 * Mounts states of a data partition with the kernel that we ship: all of them
 * as partitions of one disk, in a virtual machine whose init is a script.
 */
import { Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { devices } from "../../src/Build.ts"
import { components } from "../../src/components/catalog.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { CacheLocation } from "../../src/components/Environment.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as Initramfs from "../../src/image/Initramfs.ts"
import * as ModuleSet from "../../src/image/ModuleSet.ts"
import * as Qemu from "../../src/vm/Qemu.ts"
import { temporaryDirectory } from "../boot/support.ts"
import * as Workload from "./Workload.ts"

const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }
const run = (program: string, args: ReadonlyArray<string>, options: { readonly input?: string } = {}) =>
  execFileSync(program, [...args], { ...options, env: environment, encoding: "utf8", stdio: "pipe" })

const MIB = 2 ** 20
const CHUNK = 65_536
const zeros = Buffer.alloc(CHUNK)
// Of what the init found, on a disk of its own.
const RESULT_BYTES = 32 * MIB
const END = "that is all"

/** A disk with one partition for each state, to be filled by {@link write}. */
export const makeDisk = (file: string, count: number, bytes: number): void => {
  fs.writeFileSync(file, "")
  fs.truncateSync(file, count * bytes + 2 * MIB)
  const lines = Array.from({ length: count }, (_, index) => {
    return `start=${(MIB + index * bytes) / 512}, size=${bytes / 512}`
  })
  run("sfdisk", ["--quiet", "--no-reread", "--no-tell-kernel", file], {
    input: `label: gpt\nunit: sectors\n${lines.join("\n")}\n`,
  })
}

/** Where on that disk the partition of a state begins. */
export const offsetOf = (index: number, bytes: number): number => MIB + index * bytes

/** Writes what is not zero: the file stays sparse. */
export const write = (file: string, offset: number, content: Buffer): void => {
  const handle = fs.openSync(file, "r+")
  for (let at = 0; at < content.length; at += CHUNK) {
    const chunk = content.subarray(at, at + CHUNK)
    if (!chunk.equals(chunk.length === CHUNK ? zeros : zeros.subarray(0, chunk.length)))
      fs.writeSync(handle, chunk, 0, chunk.length, offset + at)
  }
  fs.closeSync(handle)
}

/** As the data partition stage mounts it; the journal is replayed by that. */
const init = (count: number) => String.raw`#!/bin/sh
mkdir -p /proc /sys /dev /mnt
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe virtio_blk
modprobe ext4 2>/dev/null
until [ -b /dev/vda${count} ] && [ -b /dev/vdb ]; do sleep 0.1; done
dmesg -c >/dev/null
state=1
while [ $state -le ${count} ]; do
  echo "state $state"
  if mount -t ext4 -o nosuid,nodev,relatime /dev/vda$state /mnt; then
    echo mounted
    ${Workload.report("/mnt")}
    # As a node would go on: the filesystem takes writes.
    echo written >/mnt/after-the-cut && sync /mnt/after-the-cut && echo writable
    umount /mnt && echo unmounted
  fi
  dmesg -c | grep -E 'EXT4-fs|JBD2|Buffer I/O' | sed 's/^/kernel /'
  state=$((state + 1))
done >/result 2>&1
echo "${END}" >>/result
cat /result >/dev/vdb
sync
poweroff -f
`

const applets =
  "base64 cat dmesg find grep mkdir modprobe mount poweroff sed sh sha256sum sleep sync umount".split(" ")

/** What came of mounting one state. */
export interface Outcome {
  readonly mounted: boolean
  /** It took a write after that, and was unmounted in order. */
  readonly usable: boolean
  readonly found: Workload.Found
  /** What mount(8) and the kernel said. */
  readonly said: ReadonlyArray<string>
}

/** The errors among what the kernel says of a filesystem: all else tells of the replayed journal. */
const isError = (line: string) => /error|corrupt|warning|bad |failed|aborting/iu.test(line)

const outcomeOf = (lines: ReadonlyArray<string>): Outcome => ({
  mounted: lines.includes("mounted"),
  usable:
    lines.includes("writable") &&
    lines.includes("unmounted") &&
    !lines.some((line) => line.startsWith("kernel ") && isError(line)),
  found: Workload.parse(lines),
  said: lines.filter((line) => !/^(?:file|journal|mounted|writable|unmounted)\b/u.test(line)),
})

/**
 * Boots a virtual machine that mounts each partition of a disk of
 * {@link makeDisk}, and tells what it found. The disk is changed by that: each
 * journal is replayed.
 */
export const mountAll = Effect.fnUntraced(
  function* (disk: string, count: number) {
    const directory = yield* temporaryDirectory
    const store = yield* ComponentStore
    const catalog = yield* components("x86_64")
    const kernel = yield* store.resolve(catalog.kernel)
    const busybox = filePath(yield* store.resolve(catalog.busybox), "bin/busybox")
    const work = path.join((yield* CacheLocation).root, "modules", kernel.key)
    fs.mkdirSync(work, { recursive: true })
    const initrd = path.join(directory, "initrd")
    yield* Initramfs.write(
      [
        ...devices,
        { _tag: "File", path: "/init", mode: 0o755, content: { bytes: Buffer.from(init(count)) } },
        { _tag: "File", path: "/bin/busybox", mode: 0o755, content: { path: busybox } },
        ...applets.map((name) => ({ _tag: "Symlink", path: `/bin/${name}`, target: "busybox" }) as const),
        ...(yield* ModuleSet.entries({
          root: kernel.directory,
          release: kernel.attributes["release"] ?? "",
          modules: ["virtio_blk", "ext4"],
          work,
        })),
      ],
      { output: initrd, compression: "none" },
    )
    const result = path.join(directory, "result")
    fs.writeFileSync(result, "")
    fs.truncateSync(result, RESULT_BYTES)
    const machine = yield* Qemu.start({
      efi: filePath(kernel, "boot/vmlinuz"),
      boot: "direct",
      initrd,
      cmdline: "console=ttyS0 loglevel=6 panic=-1 rdinit=/init",
      memoryMiB: 512,
      disks: [disk, result].map((file) => ({ path: file, format: "raw" }) as const),
      noReboot: true,
    })
    yield* Effect.timeoutOrElse(machine.exit, {
      duration: "8 minutes",
      orElse: () =>
        Effect.die(
          new Error(
            `the states were not mounted in time:\n${machine.console
              .tail(30)
              .map(({ text }) => text)
              .join("\n")}`,
          ),
        ),
    })
    const lines = fs.readFileSync(result).toString("utf8").split("\n")
    const end = lines.indexOf(END)
    if (end < 0) {
      const tail = machine.console.tail(30).map(({ text }) => text)
      return yield* Effect.die(
        new Error(`no result of mounting:\n${tail.join("\n")}\n${lines.slice(-5).join("\n")}`),
      )
    }
    const starts = lines.flatMap((line, index) => (index < end && /^state \d+$/u.test(line) ? [index] : []))
    return starts.map((start, index) => outcomeOf(lines.slice(start + 1, starts[index + 1] ?? end)))
  },
  Effect.scoped,
  Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)),
)

/** What e2fsck(8) has to say against the filesystem at `offset`; undefined: nothing. */
export const check = (disk: string, offset: number): string | undefined => {
  try {
    run("e2fsck", ["-fn", `${disk}?offset=${offset}`])
    return undefined
  } catch (cause) {
    const { stderr, stdout } = cause as { readonly stdout?: string; readonly stderr?: string }
    return `${stdout ?? ""}${stderr ?? ""}`
  }
}
