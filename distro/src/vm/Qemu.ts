/**
 * A virtual machine as a scoped resource: it runs while its scope is open and
 * leaves nothing behind, no process, no file, no socket.
 */
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import * as Console from "./Console.ts"
import { mend, type Mended } from "./EmulatorFault.ts"
import * as Qmp from "./Qmp.ts"
import { type Forward, type MachineOptions, qemuArguments, validate } from "./QemuArguments.ts"
import { fitsSocketPath } from "./UnixSocket.ts"
import { type QmpError, QemuExited, type VmError, VmOptionsInvalid, VmPrepareFailed } from "./VmError.ts"
import { type Accelerator, VmHost } from "./VmHost.ts"

export type { Disk, Forward, MachineOptions } from "./QemuArguments.ts"

/** How QEMU ended. */
export interface QemuExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** The last 64 KiB of standard error. */
  readonly stderr: string
  /** The monitor's reason: `guest-shutdown`, `guest-reset`, `host-qmp-quit`, ... */
  readonly shutdownReason?: string
}

/** A machine that was switched on. */
export interface Qemu {
  readonly pid: number
  /** Program and arguments, to be run by hand. */
  readonly command: ReadonlyArray<string>
  readonly accelerator: Accelerator
  /** Power-on: ns of the host's monotonic clock. */
  readonly startedAt: bigint
  /** The machine's private directory; deleted with the scope. */
  readonly directory: string
  readonly console: Console.Console
  readonly qmp: Qmp.Qmp
  /** Socket paths of the named virtio-serial ports. */
  readonly ports: Readonly<Record<string, string>>
  /** The forwarded ports with the host's side chosen. */
  readonly forwards: ReadonlyArray<Forward>
  /** Waits until QEMU has ended, for whatever reason. */
  readonly exit: Effect.Effect<QemuExit>
  /** How it ended, or `undefined` while it runs. */
  readonly exited: () => QemuExit | undefined
  /** Its resets after faults of the emulator. */
  readonly mended: Mended
}

/** Writes a bootable disk with the EFI at `/EFI/BOOT/BOOTX64.EFI`. */
export type MakeEspDisk = (files: {
  readonly efi: string
  readonly disk: string
}) => Effect.Effect<unknown, unknown>

/** What {@link start} takes. */
export interface StartOptions extends MachineOptions {
  /** Where the private directory is made. Default: the system's directory for temporary files. */
  readonly directory?: string
  /** Needed with `boot: "disk"`. */
  readonly makeEspDisk?: MakeEspDisk
  /** How the console is kept. */
  readonly console?: Console.ConsoleOptions
  /** How long QEMU may take until its monitor answers, ms. Default 20000. */
  readonly monitorTimeoutMs?: number
}

/** How long each way of ending QEMU is given before the next is tried, ms. */
const graceMs = 2000
const stderrKept = 65_536

const prepare = <A>(step: string, run: () => A): Effect.Effect<A, VmPrepareFailed> =>
  Effect.try({ try: run, catch: (cause) => new VmPrepareFailed({ step, cause }) })

/** A directory of our own, gone with the scope. */
const privateDirectory = (parent: string): Effect.Effect<string, VmPrepareFailed, Scope.Scope> =>
  Effect.acquireRelease(
    prepare(`making a directory in ${parent}`, () => fs.mkdtempSync(path.join(parent, "kios-vm-"))),
    (directory) =>
      Effect.sync(() => {
        try {
          fs.rmSync(directory, { recursive: true, force: true })
        } catch {
          // somebody else's file in it: what is ours is gone
        }
      }),
  )

/** The directory itself if socket paths in it fit into an address, else one that does. */
const socketDirectory = Effect.fnUntraced(function* (directory: string, names: ReadonlyArray<string>) {
  const longest = names.reduce((a, b) => (b.length > a.length ? b : a), "")
  if (fitsSocketPath(path.join(directory, longest))) return directory
  for (const parent of new Set([os.tmpdir(), "/tmp"])) {
    // mkdtemp adds six characters
    if (fitsSocketPath(path.join(parent, "kios-vm-XXXXXX", longest))) return yield* privateDirectory(parent)
  }
  return yield* new VmOptionsInvalid({
    option: "ports",
    reason: `no directory with a path short enough for a socket named ${longest} (107 bytes)`,
  })
})

/** A port of 127.0.0.1 that nobody listens on at this moment. */
const freePort = Effect.callback<number, VmPrepareFailed>((resume) => {
  const server = net.createServer()
  server.once("error", (cause) =>
    resume(Effect.fail(new VmPrepareFailed({ step: "looking for a free port", cause }))),
  )
  server.listen({ host: "127.0.0.1", port: 0 }, () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
  return Effect.sync(() => server.close())
})

interface Process {
  readonly child: ChildProcess
  readonly pid: number
  readonly exited: () => QemuExit | undefined
  readonly exit: Effect.Effect<QemuExit>
}

/** Whether the process has ended within `ms`. */
const endsWithin = (self: Process, ms: number): Effect.Effect<boolean> =>
  self.exit.pipe(
    Effect.as(true),
    Effect.timeoutOrElse({ duration: ms, orElse: () => Effect.succeed(self.exited() !== undefined) }),
  )

const terminate = Effect.fnUntraced(function* (self: Process) {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    if (self.exited() !== undefined) return
    self.child.kill(signal)
    if (yield* endsWithin(self, graceMs)) return
  }
})

/** Starts the program; its standard output goes to the console. Ended with the scope by SIGTERM, then SIGKILL. */
const startProcess = (
  command: ReadonlyArray<string>,
  console: Console.Console,
  reason: () => string | undefined,
) =>
  Effect.acquireRelease(
    Effect.callback<Process, VmPrepareFailed>((resume) => {
      const [file = "", ...args] = command
      // A session of its own: Ctrl-C in the terminal reaches us only, and we end QEMU in order.
      const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], detached: true })
      const ended = Promise.withResolvers<QemuExit>()
      let exited: QemuExit | undefined
      let stderr = ""
      const killAtExit = () => child.kill("SIGKILL")
      const finish = (code: number | null, signal: NodeJS.Signals | null) => {
        if (exited !== undefined) return
        const shutdownReason = reason()
        exited = { code, signal, stderr, ...(shutdownReason === undefined ? {} : { shutdownReason }) }
        process.off("exit", killAtExit)
        console.end()
        ended.resolve(exited)
      }
      child.stdout.on("data", (bytes: Buffer) => console.write(bytes))
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr = (stderr + text).slice(-stderrKept)
      })
      child.once("error", (cause) =>
        resume(Effect.fail(new VmPrepareFailed({ step: `starting ${file}`, cause }))),
      )
      child.once("spawn", () => {
        process.on("exit", killAtExit)
        const exit = Effect.promise(() => ended.promise)
        resume(Effect.succeed({ child, pid: child.pid ?? 0, exit, exited: () => exited }))
      })
      // "close" comes when its output is read to the end; a child of it may keep that open for ever.
      child.once("exit", (code, signal) => setTimeout(finish, 500, code, signal).unref())
      child.once("close", finish)
    }),
    terminate,
  )

const portTaken = (error: VmError): boolean =>
  error._tag === "QemuExited" && /Could not set up host forwarding rule/.test(error.stderr)

/**
 * Switches a machine on. It is ended with the scope, by the monitor's `quit`,
 * then SIGTERM, then SIGKILL, and its directory is deleted; should this process
 * be killed itself, the kernel kills QEMU where setpriv(1) is at hand.
 *
 * Fails with `VmOptionsInvalid` for options that make no machine,
 * `VmRequirementMissing` when QEMU or OVMF is not installed (with the command
 * that installs it), `VmPrepareFailed` for files, `QemuExited` with QEMU's
 * standard error when it does not start, `QmpError` when its monitor is silent.
 *
 * @example
 * ```ts
 * import * as Qemu from "@kios/distro/vm/Qemu"
 * import { Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const vm = yield* Qemu.start({
 *     efi: "kios.efi",
 *     boot: "kernel",
 *     memoryMiB: 1536,
 *     network: "user",
 *     forwards: [{ hostPort: 0, guestPort: 80 }],
 *   })
 *   yield* vm.console.lines.pipe(
 *     Stream.takeUntil((line) => line.text.includes("pod-running")),
 *     Stream.runDrain,
 *   )
 * }).pipe(Effect.scoped)
 * ```
 */
export const start = (options: StartOptions): Effect.Effect<Qemu, VmError, Scope.Scope> =>
  // Another program may take a port between our choice and QEMU's start.
  attempt(options).pipe(
    Effect.retry({
      times: 4,
      while: (error) =>
        portTaken(error) && (options.forwards ?? []).some((forward) => forward.hostPort === 0),
    }),
  )

const attempt = Effect.fnUntraced(function* (
  options: StartOptions,
): Effect.fn.Return<Qemu, VmError, Scope.Scope> {
  yield* validate(options)
  const host = yield* VmHost
  const binary = yield* host.qemu
  for (const [option, file] of [
    ...(options.efi === undefined ? [] : [["efi", options.efi] as const]),
    ...(options.initrd === undefined ? [] : [["initrd", options.initrd] as const]),
    ...(options.disks ?? []).map((disk) => ["disks", disk.path] as const),
  ]) {
    if (!fs.existsSync(file)) return yield* new VmOptionsInvalid({ option, reason: `${file} does not exist` })
  }

  for (const { writeLog } of options.disks ?? [])
    if (writeLog !== undefined) yield* prepare(`creating ${writeLog}`, () => fs.writeFileSync(writeLog, ""))

  const directory = yield* privateDirectory(options.directory ?? os.tmpdir())
  const firmware = options.boot === "direct" ? undefined : yield* host.firmware
  const vars = path.join(directory, "OVMF_VARS.fd")
  if (firmware !== undefined)
    yield* prepare(`copying ${firmware.vars}`, () => {
      fs.copyFileSync(firmware.vars, vars)
      fs.chmodSync(vars, 0o600)
    })
  const espDisk = options.boot === "disk" ? path.join(directory, "esp.img") : undefined
  if (espDisk !== undefined && options.efi !== undefined) {
    if (options.makeEspDisk === undefined)
      return yield* new VmOptionsInvalid({ option: "makeEspDisk", reason: 'is needed with boot "disk"' })
    yield* options
      .makeEspDisk({ efi: options.efi, disk: espDisk })
      .pipe(Effect.mapError((cause) => new VmPrepareFailed({ step: "writing the disk to boot from", cause })))
  }

  const accelerator = yield* chooseAccelerator(options, host.accelerator(binary))
  const forwards: Array<Forward> = []
  for (const { hostPort, guestPort } of options.forwards ?? [])
    forwards.push({ hostPort: hostPort === 0 ? yield* freePort : hostPort, guestPort })

  const names = options.ports ?? []
  const sockets = yield* socketDirectory(directory, ["qmp.sock", ...names.map((name) => `port-${name}`)])
  const portSockets = new Map(names.map((name) => [name, path.join(sockets, `port-${name}`)]))
  const qmpSocket = path.join(sockets, "qmp.sock")

  const args = qemuArguments(options, {
    accelerator,
    ...(firmware === undefined ? {} : { firmware: { code: firmware.code, vars } }),
    ...(espDisk === undefined ? {} : { espDisk }),
    qmpSocket,
    portSockets,
    forwards,
  })
  const console = yield* Console.make(options.console)
  let monitor: Qmp.Qmp | undefined
  const child = yield* startProcess([...(yield* host.dieWithParent), binary, ...args], console, () =>
    monitor?.shutdownReason(),
  )
  const earlyExit = (during: string) =>
    Effect.flatMap(child.exit, ({ code, signal, stderr }) =>
      Effect.fail(new QemuExited({ during, code, signal, stderr, command: [binary, ...args] })),
    )
  const whileRunning = <A, E>(during: string, effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.raceFirst(
      // A closed monitor is QEMU's end seen from afar: prefer the exit, which says why.
      effect.pipe(
        Effect.tapError(() =>
          child.exit.pipe(Effect.timeoutOrElse({ duration: graceMs, orElse: () => Effect.void })),
        ),
      ),
      earlyExit(during),
    )
  const qmp = yield* whileRunning(
    "creating the machine",
    Qmp.connect({ path: qmpSocket, timeoutMs: options.monitorTimeoutMs ?? 20_000 }),
  )
  monitor = qmp
  // Runs before the connection is closed and before the signals of startProcess.
  yield* Effect.addFinalizer(() =>
    child.exited() === undefined
      ? qmp.quit.pipe(
          Effect.timeoutOrElse({ duration: graceMs, orElse: () => Effect.void }),
          Effect.ignore,
          Effect.andThen(endsWithin(child, graceMs)),
        )
      : Effect.void,
  )
  const mended = yield* mend({ accelerator, console, qmp, noReboot: options.noReboot ?? false })
  const startedAt = process.hrtime.bigint()
  yield* whileRunning<void, QmpError>("switching the machine on", qmp.cont)

  return {
    pid: child.pid,
    command: [binary, ...args],
    accelerator,
    startedAt,
    directory,
    console,
    qmp,
    ports: Object.fromEntries(portSockets),
    forwards,
    exit: child.exit,
    exited: child.exited,
    mended,
  }
})

const chooseAccelerator = (
  options: MachineOptions,
  detect: Effect.Effect<Accelerator>,
): Effect.Effect<Accelerator> => {
  switch (options.accelerator ?? "auto") {
    case "auto":
      return detect
    case "kvm":
      return Effect.succeed({ _tag: "kvm" })
    case "tcg":
      return Effect.succeed({ _tag: "tcg", reason: "chosen" })
    case "icount":
      return Effect.succeed({ _tag: "icount" })
  }
}
