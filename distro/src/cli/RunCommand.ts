/**
 * `kios run`: boots an EFI in QEMU and watches it.
 */
import { Data, Effect, Runtime, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as YAML from "yaml"
import * as DiskImage from "../image/DiskImage.ts"
import { type Disk } from "../vm/QemuArguments.ts"
import * as Timeline from "../vm/Timeline.ts"
import * as VmRun from "../vm/VmRun.ts"
import { BadInput } from "./BadInput.ts"
import { buildReference, defaultEfi, json } from "./BuildCommand.ts"
import { exitCodes, Output, type OutputShape } from "./Output.ts"
import { goalOf, parsed, parseForward, parseSeconds, parseUntil, type Until } from "./RunOptions.ts"
import { showEvent } from "./ShowEvent.ts"

/** The machine did not reach what was asked for. */
export class NotReached extends Data.TaggedError("NotReached")<{
  readonly reason: string
}> {
  override readonly [Runtime.errorExitCode] = exitCodes.notReached
  override get message(): string {
    return this.reason
  }
}

/** The machine ended by itself after it was up, and not by powering off. */
export class MachineStopped extends Data.TaggedError("MachineStopped")<{
  readonly how: string
  readonly lastLine: string
}> {
  override get message(): string {
    return `the machine stopped (${this.how}); the last line of its console: ${this.lastLine}`
  }
}

/** GPT PARTUUID of the partition that carries `--manifest` files. */
const MANIFEST_DISK = "6b696f73-6d61-4e69-8665-737400000001"
// OVMF holds the file, the loaded image and the initramfs at once.
const DEFAULT_MEMORY = 1536
// A page that the sample pod serves.
const HELLO_PORT = 8080

/** The bytes of a file that was named on the command line. */
export const readable = (file: string) =>
  Effect.try({
    try: () => fs.readFileSync(file),
    catch: (cause) =>
      new BadInput({
        file,
        reason: `cannot be read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
      }),
  })

/** A warning for people when a manifest will be refused by the kubelet; it is given to the node all the same. */
export const lintManifest = (file: string, text: string, output: OutputShape) => {
  const document = YAML.parseDocument(text)
  const error = document.errors[0]
  if (error !== undefined)
    output.line(`! ${file}: ${error.message.split("\n")[0]} (the node will report it too)`)
}

/** A disk with a data partition that holds the manifests, where the node looks for static pods. */
const manifestDisk = Effect.fnUntraced(function* (files: ReadonlyArray<string>, output: OutputShape) {
  const contents = yield* Effect.forEach(files, (file) =>
    Effect.map(readable(file), (bytes) => ({ file, bytes })),
  )
  for (const { bytes, file } of contents) lintManifest(file, bytes.toString("utf8"), output)
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-run-"))),
    (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true })),
  )
  const disk = path.join(directory, "manifests.img")
  yield* DiskImage.write({
    output: disk,
    label: "manifests",
    data: {
      sizeMiB: 1024,
      uuid: MANIFEST_DISK,
      files: contents.map(({ bytes, file }) => ({
        path: `meta/etc/kubernetes/manifests/${path.basename(file)}`,
        bytes,
      })),
    },
  })
  return { path: disk, format: "raw", serial: "manifests" } satisfies Disk
})

const diskOf = Effect.fnUntraced(function* (file: string) {
  const handle = yield* Effect.try({
    try: () => fs.openSync(file, "r"),
    catch: (cause) =>
      new BadInput({
        file,
        reason: `cannot be opened: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
      }),
  })
  const magic = Buffer.alloc(4)
  fs.readSync(handle, magic, 0, 4, 0)
  fs.closeSync(handle)
  // "QFI\xfb": docs/interop/qcow2.rst
  return {
    path: path.resolve(file),
    format: magic.equals(Buffer.from("QFI\u00fb", "latin1")) ? "qcow2" : "raw",
  } satisfies Disk
})

const flags = {
  efi: Flag.String("efi").pipe(
    Flag.withDefault(defaultEfi),
    Flag.withDescription("The EFI to boot; built first when it is not there"),
  ),
  build: Flag.Boolean("build").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Build the EFI first in any case"),
  ),
  until: Flag.String("until").pipe(
    parsed(parseUntil, "pod=NAME, pod=NAMESPACE/NAME or milestone=NAME"),
    Flag.atLeast(0),
    Flag.withDescription(
      "Stop when this is reached (pod=NAME or milestone=NAME; may be given again); without it, run until Ctrl-C",
    ),
  ),
  timeout: Flag.String("timeout").pipe(
    Flag.withDefault("5m"),
    parsed(parseSeconds, "a duration such as 90s or 5m"),
    Flag.withDescription("How long the boot may take (default 5m)"),
  ),
  cmdline: Flag.String("cmdline").pipe(
    Flag.withDefault(""),
    Flag.withDescription("Words to add to the kernel command line"),
  ),
  memory: Flag.Int("memory").pipe(
    Flag.withDefault(DEFAULT_MEMORY),
    Flag.withDescription(`RAM in MiB (default ${DEFAULT_MEMORY})`),
  ),
  cpus: Flag.Int("cpus").pipe(Flag.withDefault(2), Flag.withDescription("Virtual CPUs (default 2)")),
  disk: Flag.String("disk").pipe(
    Flag.atLeast(0),
    Flag.withDescription("A disk image, raw or qcow2; may be given again"),
  ),
  manifest: Flag.String("manifest").pipe(
    Flag.atLeast(0),
    Flag.withDescription(
      "A static pod manifest to run, on a data disk of its own (so not with --disk); may be given again",
    ),
  ),
  boot: Flag.Literals("boot", ["kernel", "disk", "image"]).pipe(
    Flag.withDefault("kernel" as const),
    Flag.withDescription(
      "How the firmware gets the EFI: from QEMU, from a disk as EFI/BOOT/BOOTX64.EFI, or from the first --disk, which has one (kios image)",
    ),
  ),
  forward: Flag.String("forward").pipe(
    parsed(parseForward, "HOST:GUEST port numbers"),
    Flag.atLeast(0),
    Flag.withDescription("Forward a TCP port of this machine to the node; may be given again"),
  ),
  json,
} as const

type Flags = { readonly [K in keyof typeof flags]: (typeof flags)[K] extends Flag.Flag<infer A> ? A : never }

const run = Effect.fnUntraced(function* (options: Flags) {
  const output = yield* Output
  const efi = path.resolve(options.efi)
  // Only the reference distro is built here, and only where it belongs: nobody's own EFI is overwritten.
  const image = options.boot === "image"
  const reference = efi === path.resolve(defaultEfi) && !image
  if (image && (options.disk.length === 0 || options.build || efi !== path.resolve(defaultEfi))) {
    return yield* new BadInput({
      file: "--boot image",
      reason: "boots what is on the first --disk: give one, and neither --efi nor --build",
    })
  }
  if (!reference && options.build) {
    return yield* new BadInput({ file: options.efi, reason: `--build makes ${defaultEfi} and nothing else` })
  }
  if (!reference && !image && !fs.existsSync(efi))
    return yield* new BadInput({ file: options.efi, reason: "does not exist" })
  if (!image && (options.build || !fs.existsSync(efi))) yield* buildReference(efi)
  const names = options.manifest.map((file) => path.basename(file))
  const twice = options.manifest.find((file, index) => names.indexOf(path.basename(file)) !== index)
  if (twice !== undefined) {
    return yield* new BadInput({
      file: twice,
      reason: "another --manifest has the same file name; rename one",
    })
  }
  if (options.manifest.length > 0 && options.disk.length > 0) {
    return yield* new BadInput({
      file: "--manifest",
      reason:
        "cannot be combined with --disk: put the manifest on the disk, in meta/etc/kubernetes/manifests of its data partition",
    })
  }
  const disks = [
    ...(yield* Effect.forEach(options.disk, diskOf)),
    ...(options.manifest.length > 0 ? [yield* manifestDisk(options.manifest, output)] : []),
  ]
  const forwards = options.forward.length > 0 ? options.forward : [{ hostPort: 0, guestPort: HELLO_PORT }]
  const machine = yield* VmRun.boot({
    ...(image ? {} : { efi }),
    boot: options.boot,
    makeEspDisk: ({ disk, efi: file }) => DiskImage.write({ output: disk, esp: { efi: file } }),
    disks,
    memoryMiB: options.memory,
    cpus: options.cpus,
    network: "user",
    forwards,
    ...(options.cmdline === "" ? {} : { cmdline: options.cmdline }),
    noReboot: true,
  })
  // Somebody else's EFI need not have the sample pod.
  const standard: Until = reference
    ? { kind: "pod", name: "default/hello" }
    : { kind: "milestone", name: "boot-complete" }
  const untils = options.until.length > 0 ? options.until : [standard]
  output.line(
    `booting ${image ? options.disk[0] : options.efi} (${machine.vm.accelerator._tag}, ${options.memory} MiB, ${options.cpus} CPUs)`,
  )
  output.status("firmware")
  yield* Effect.forkScoped(
    Stream.runForEach(machine.progress, (progress) => Effect.sync(() => showEvent(output, progress))),
  )
  const result = yield* machine.until(goalOf(untils), { timeout: `${options.timeout} seconds` })
  output.status(undefined)
  output.line(
    `\n${Timeline.render(result.timeline, { width: Math.min(output.width, 120), color: output.color })}\n`,
  )
  output.object({
    event: "finished",
    reached: result.reached,
    reason: result.reason,
    missing: result.missing,
    seconds: result.seconds,
    timeline: result.timeline,
  })
  if (!result.reached) return yield* new NotReached({ reason: result.reason ?? "not reached" })
  if (options.until.length > 0) return
  for (const forward of machine.vm.forwards) {
    output.line(`port ${forward.guestPort} of the node: http://127.0.0.1:${forward.hostPort}/`)
  }
  output.line("The node has no shell; it is configured by pods. Ctrl-C stops it.")
  output.object({ event: "ready", forwards: machine.vm.forwards })
  const ended = yield* machine.vm.exit
  const how = ended.shutdownReason ?? ended.signal ?? `code ${ended.code}`
  // A node that was told to power off has done what it should; anything else is a crash.
  if (ended.shutdownReason !== "guest-shutdown") {
    return yield* new MachineStopped({ how, lastLine: machine.vm.console.tail(1)[0]?.text ?? "" })
  }
  output.line(`the machine has powered off (${how})`)
})

export const runCommand = Command.make("run", flags, (options) =>
  Effect.scoped(run(options)).pipe(Effect.provide(Output.layer(options.json))),
).pipe(Command.withDescription("Boot the EFI in a virtual machine and show its boot as it happens"))
