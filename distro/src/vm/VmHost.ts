/**
 * What the developer's machine has for running virtual machines: QEMU, UEFI
 * firmware, KVM. A `Context.Reference`, so that nothing must be provided, and
 * tests put their own host in its place.
 */
import { Context, Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { VmRequirementMissing } from "./VmError.ts"

/** UEFI firmware: the code is mapped read-only, the variables are copied for each machine. */
export interface Firmware {
  readonly code: string
  readonly vars: string
}

/** How the guest's instructions are run. `reason` says why it is not KVM. */
export type Accelerator =
  | { readonly _tag: "kvm" }
  | { readonly _tag: "tcg"; readonly reason: string }
  /** TCG on a virtual clock that counts instructions: repeatable to about 0.2 s, one CPU. */
  | { readonly _tag: "icount" }

/** The host's facts. */
export interface VmHostShape {
  /** Path of QEMU for x86_64. `KIOS_QEMU` overrides. */
  readonly qemu: Effect.Effect<string, VmRequirementMissing>
  /** OVMF. `KIOS_OVMF_CODE` and `KIOS_OVMF_VARS` override. */
  readonly firmware: Effect.Effect<Firmware, VmRequirementMissing>
  /** Whether KVM really runs a machine with the given QEMU; a device node alone says little. */
  readonly accelerator: (qemu: string) => Effect.Effect<Accelerator>
  /** A command to put before QEMU's so that it dies with us, even after a SIGKILL; or nothing. */
  readonly dieWithParent: Effect.Effect<ReadonlyArray<string>>
}

const install = "apt-get install qemu-system-x86 ovmf"

/** Code and variables as the distributions install them, 4 MB variants first. */
const firmwares: ReadonlyArray<readonly [code: string, vars: string]> = [
  ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"], // Debian, Ubuntu
  ["/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"], // Arch
  ["/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"], // openSUSE
  ["/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"], // Fedora
  ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"], // older Debian, Alpine
  ["/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"], // older Arch
  ["/usr/share/edk2-ovmf/OVMF_CODE.fd", "/usr/share/edk2-ovmf/OVMF_VARS.fd"], // Gentoo
  ["/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"], // QEMU's own build
]

const readable = (file: string): boolean => {
  try {
    fs.accessSync(file, fs.constants.R_OK)
    return fs.statSync(file).isFile()
  } catch {
    return false
  }
}

/** The first executable file called `name` in `searchPath` (default: `PATH`, then the sbin directories). */
export const findProgram = (name: string, searchPath?: string): string | undefined => {
  const directories = (searchPath ?? `${process.env["PATH"] ?? ""}:/usr/local/bin:/usr/bin:/bin:/usr/libexec`)
    .split(":")
    .filter((directory) => path.isAbsolute(directory))
  for (const directory of directories) {
    const file = path.join(directory, name)
    try {
      fs.accessSync(file, fs.constants.X_OK)
      if (fs.statSync(file).isFile()) return file
    } catch {
      // the next one
    }
  }
  return undefined
}

const qemu = Effect.suspend(() => {
  const override = process.env["KIOS_QEMU"]
  const name = "qemu-system-x86_64"
  const found = override === undefined || override === "" ? findProgram(name) : override
  return found !== undefined && fs.existsSync(found)
    ? Effect.succeed(found)
    : Effect.fail(
        new VmRequirementMissing({
          what: name,
          searched: found === undefined ? ["PATH"] : [`KIOS_QEMU=${found}`],
          install,
        }),
      )
})

const firmware = Effect.suspend(() => {
  const code = process.env["KIOS_OVMF_CODE"]
  const vars = process.env["KIOS_OVMF_VARS"]
  const candidates = code !== undefined && vars !== undefined ? [[code, vars] as const] : firmwares
  const found = candidates.find((files) => files.every(readable))
  return found === undefined
    ? Effect.fail(
        new VmRequirementMissing({
          what: "UEFI firmware (OVMF)",
          searched: candidates.map(([file]) => file),
          install,
        }),
      )
    : Effect.succeed({ code: found[0], vars: found[1] })
})

/** How long a machine without a program may take to appear under KVM, ms. */
const kvmDeadlineMs = 10_000
const kvmAnswers = new Map<string, Promise<Accelerator>>()

/**
 * Starts an empty, stopped machine with KVM and the host's CPU model, and ends
 * it: in nested and sandboxed environments the device can be opened and QEMU
 * still aborts when it sets up the processor.
 */
const tryKvm = (binary: string): Promise<Accelerator> =>
  new Promise((resolve) => {
    const tcg = (reason: string) => resolve({ _tag: "tcg", reason })
    try {
      fs.accessSync("/dev/kvm", fs.constants.R_OK | fs.constants.W_OK)
    } catch (error) {
      const denied = (error as NodeJS.ErrnoException).code === "EACCES"
      return tcg(denied ? "no permission for /dev/kvm (add yourself to the group kvm)" : "no /dev/kvm")
    }
    const child = spawn(
      binary,
      [
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-machine",
        "q35",
        "-m",
        "32",
        "-S",
        "-nodefaults",
        "-no-user-config",
      ].concat(["-display", "none", "-qmp", "stdio"]),
      { stdio: ["pipe", "ignore", "pipe"] },
    )
    let stderr = ""
    const timer = setTimeout(() => child.kill("SIGKILL"), kvmDeadlineMs)
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (stderr.length < 4096) stderr += text
    })
    child.stdin.on("error", () => {})
    child.stdin.end('{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n')
    child.on("error", (error) => {
      clearTimeout(timer)
      tcg(error.message)
    })
    child.on("close", (code, signal) => {
      clearTimeout(timer)
      if (code === 0) resolve({ _tag: "kvm" })
      else
        tcg(
          `/dev/kvm does not run a machine: ${stderr.trim().split("\n")[0] || (signal ?? `exit code ${code}`)}`,
        )
    })
  })

const accelerator = (binary: string): Effect.Effect<Accelerator> =>
  Effect.promise(() => {
    const known = kvmAnswers.get(binary) ?? tryKvm(binary)
    kvmAnswers.set(binary, known)
    return known
  })

let pdeathsig: ReadonlyArray<string> | undefined

/** setpriv(1) of util-linux >= 2.33; BusyBox's has no such option. */
const dieWithParent = Effect.sync(() => {
  if (pdeathsig === undefined) {
    const setpriv = findProgram("setpriv")
    const knows =
      setpriv !== undefined &&
      spawnSync(setpriv, ["--help"], { encoding: "utf8" }).stdout?.includes("--pdeathsig")
    pdeathsig = knows === true && setpriv !== undefined ? [setpriv, "--pdeathsig", "KILL", "--"] : []
  }
  return pdeathsig
})

/** The machine that we run on, or a test's. */
export const VmHost = Context.Reference<VmHostShape>("kios/vm/VmHost", {
  defaultValue: () => ({ qemu, firmware, accelerator, dieWithParent }),
})
