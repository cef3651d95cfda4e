/**
 * The unified kernel image: systemd's EFI stub with the kernel, the initramfs
 * and the command line as sections, so that firmware loads one file and
 * nothing else.
 *
 * Source: the UAPI group's specification "Unified Kernel Image (UKI)",
 * systemd-stub(7), and kernel Documentation/arch/x86/boot.rst.
 *
 * @module
 */
import { Effect } from "effect"
import { type ImageError, PortableExecutableError } from "./ImageError.ts"
import type { Content } from "./internal/InputFile.ts"
import { readAt } from "./internal/InputFile.ts"
import { attempt } from "./internal/OutputFile.ts"
import * as PortableExecutable from "./PortableExecutable.ts"

/**
 * What goes into a UKI.
 *
 * - `stub`: path of `linuxx64.efi.stub` (Debian package systemd-boot-efi).
 * - `kernel`: path of a vmlinuz that has an EFI stub.
 * - `initrd`: path of the initramfs.
 * - `cmdline`: the kernel command line, one line, without a final newline.
 * - `osRelease`: text in the format of os-release(5).
 * - `uname`: what `uname -r` says on that kernel.
 */
export interface BuildOptions {
  readonly output: string
  readonly stub: string
  readonly kernel: string
  readonly initrd: string
  readonly cmdline: string
  readonly osRelease: string
  readonly uname: string
}

/**
 * A finished UKI: bytes, SHA-256 (hexadecimal) and its sections.
 */
export interface Built {
  readonly bytes: number
  readonly sha256: string
  readonly sections: ReadonlyArray<PortableExecutable.SectionInfo>
}

const EFI_APPLICATION = 10

const refuse = (reason: PortableExecutableError["reason"], path: string, detail: string) =>
  Effect.fail(new PortableExecutableError({ reason, path, detail }))

/** The stub is an EFI program that systemd marked as its stub. */
const checkStub = (file: string): Effect.Effect<PortableExecutable.Machine, ImageError> =>
  Effect.gen(function* () {
    const info = yield* PortableExecutable.inspect(file)
    const has = (name: string) => info.sections.some((s) => s.name === name)
    if (info.subsystem !== EFI_APPLICATION || !(has(".sbat") || has(".sdmagic"))) {
      return yield* refuse(
        "NotAnEfiStub",
        file,
        "not systemd's EFI stub (linuxx64.efi.stub of systemd-boot-efi)",
      )
    }
    if (has(".linux")) return yield* refuse("DuplicateSection", file, "it is a UKI already, not a bare stub")
    return info.machine
  })

/**
 * x86: "HdrS" at 0x202 (boot.rst) of every bzImage. arm64: "ARM\x64" at 0x38
 * (booting.rst), or "zimg" at 4 of a compressed image with its own EFI stub.
 */
const checkKernel = (file: string, machine: PortableExecutable.Machine): Effect.Effect<void, ImageError> =>
  Effect.gen(function* () {
    const head = yield* PortableExecutable.head(file, 4096)
    const at = (offset: number, length: number) => head.toString("latin1", offset, offset + length)
    const isLinux = { x64: at(0x202, 4) === "HdrS", arm64: at(0x38, 4) === "ARM\x64" || at(4, 4) === "zimg" }
    if (!isLinux.x64 && !isLinux.arm64) {
      return yield* refuse("NotALinuxKernel", file, `not a Linux kernel (bzImage): no "HdrS" at 0x202`)
    }
    if (at(0, 2) !== "MZ") {
      return yield* refuse("NoEfiStubInKernel", file, "a Linux kernel without an EFI stub (CONFIG_EFI_STUB)")
    }
    const info = yield* PortableExecutable.inspect(file)
    if (info.machine !== machine || !isLinux[machine]) {
      return yield* refuse(
        "WrongMachine",
        file,
        `the kernel is for ${info.machine}, the EFI stub for ${machine}`,
      )
    }
  })

/** Sections of text end with a NUL in no UKI: their size says where they end. */
const text = (name: string, value: string, output: string): Effect.Effect<Content, ImageError> => {
  const allowed = name === ".osrel" ? /^[^\0]+$/u : /^[^\0\n]+$/u
  return allowed.test(value)
    ? Effect.succeed({ bytes: Buffer.from(value) })
    : refuse(
        "InvalidSection",
        output,
        `${name} is empty or has a NUL${name === ".osrel" ? "" : " or a newline"}`,
      )
}

/**
 * Builds a UKI. Memory does not grow with the initramfs.
 *
 * Fails with {@link PortableExecutableError}: `NotPortableExecutable` or
 * `NotAnEfiStub` (stub), `NotALinuxKernel`, `NoEfiStubInKernel`,
 * `WrongMachine` (kernel), `NoHeaderRoom`, `InvalidSection`, `TooLarge`; and
 * with `ImageFileError` for files that cannot be read or written.
 *
 * @example
 * ```ts
 * import * as Uki from "@kios/distro/image/Uki"
 *
 * const program = Uki.build({
 *   output: "kios.efi",
 *   stub: "linuxx64.efi.stub",
 *   kernel: "vmlinuz",
 *   initrd: "initramfs.lz4",
 *   cmdline: "console=ttyS0 panic=10",
 *   osRelease: "ID=kios\nNAME=kiOS\n",
 *   uname: "6.12.0-cloud-amd64",
 * })
 * ```
 */
export const build = (options: BuildOptions): Effect.Effect<Built, ImageError> =>
  Effect.gen(function* () {
    const machine = yield* checkStub(options.stub)
    yield* checkKernel(options.kernel, machine)
    const { output } = options
    const sections: ReadonlyArray<PortableExecutable.NewSection> = [
      { name: ".osrel", content: yield* text(".osrel", options.osRelease, output) },
      { name: ".cmdline", content: yield* text(".cmdline", options.cmdline, output) },
      { name: ".uname", content: yield* text(".uname", options.uname, output) },
      { name: ".initrd", content: { path: options.initrd } },
      { name: ".linux", content: { path: options.kernel }, executable: true },
    ]
    const written = yield* PortableExecutable.addSections(options.stub, sections, output)
    const info = yield* PortableExecutable.inspect(output)
    return { ...written, sections: info.sections }
  })

/**
 * Builds an addon: an EFI program that is never run and only carries words for
 * the kernel command line. The stub of the UKI `X.EFI` takes them from the files
 * `X.EFI.extra.d/*.addon.efi` beside it, as the firmware allows: with Secure Boot
 * an addon has to be signed like the UKI.
 *
 * Fails with {@link PortableExecutableError}: `NotPortableExecutable` or
 * `NotAnEfiStub` (stub), `InvalidSection` (words), and with `ImageFileError`.
 *
 * Source: systemd-stub(7), "Companion files".
 *
 * @example
 * ```ts
 * import * as Uki from "@kios/distro/image/Uki"
 *
 * const program = Uki.buildAddon({
 *   output: "kios.addon.efi",
 *   stub: "linuxx64.efi.stub",
 *   cmdline: "datapart.grow",
 * })
 * ```
 */
export const buildAddon = (
  options: Pick<BuildOptions, "output" | "stub" | "cmdline">,
): Effect.Effect<Built, ImageError> =>
  Effect.gen(function* () {
    yield* checkStub(options.stub)
    const { output } = options
    const content = yield* text(".cmdline", options.cmdline, output)
    const written = yield* PortableExecutable.addSections(
      options.stub,
      [{ name: ".cmdline", content }],
      output,
    )
    const info = yield* PortableExecutable.inspect(output)
    return { ...written, sections: info.sections }
  })

/**
 * A UKI as found in a file: its sections, and the texts in it.
 */
export interface UkiInfo extends PortableExecutable.Info {
  readonly osRelease: string | undefined
  readonly cmdline: string | undefined
  readonly uname: string | undefined
}

const TEXT_LIMIT = 1 << 16

/**
 * Lists what a UKI is made of.
 *
 * Fails with {@link PortableExecutableError}: `NotPortableExecutable`,
 * `WrongMachine`, or `MissingSection` for an EFI program without a kernel.
 *
 * @example
 * ```ts
 * import * as Uki from "@kios/distro/image/Uki"
 *
 * const info = Uki.inspect("kios.efi")
 * ```
 */
export const inspect = (file: string): Effect.Effect<UkiInfo, ImageError> =>
  Effect.gen(function* () {
    const info = yield* PortableExecutable.inspect(file)
    yield* PortableExecutable.sectionOf(file, info, ".linux")
    const textOf = (name: string) => {
      const section = info.sections.find((s) => s.name === name)
      return section === undefined
        ? Effect.succeed(undefined)
        : attempt("read", file, async () => {
            const bytes = await readAt(
              file,
              section.offset,
              Math.min(section.size, section.fileSize, TEXT_LIMIT),
            )
            return bytes.toString("utf8").replace(/\0+$/u, "")
          })
    }
    return {
      ...info,
      osRelease: yield* textOf(".osrel"),
      cmdline: yield* textOf(".cmdline"),
      uname: yield* textOf(".uname"),
    }
  })

/**
 * Copies a section's content (`.initrd`, `.linux`, ...) to a file.
 *
 * Fails like {@link inspect}.
 *
 * @example
 * ```ts
 * import * as Uki from "@kios/distro/image/Uki"
 *
 * const initramfs = Uki.extract("kios.efi", ".initrd", "initramfs.img")
 * ```
 */
export const extract = PortableExecutable.extract
