/**
 * What can go wrong while an image is written or read, as data: which file,
 * what was tried, what was wrong, what to do. Every writer of this folder
 * fails with a member of {@link ImageError} and with nothing else.
 *
 * @module
 */
import { Data, Effect } from "effect"

/**
 * The build machine's file system refused an operation.
 */
export class ImageFileError extends Data.TaggedError("ImageFileError")<{
  readonly operation: string
  readonly path: string
  readonly code: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `cannot ${this.operation} ${this.path}: ${explain(this.code, this.cause)}`
  }
}

/**
 * An argument or an input file is not what the writer can use. `reason` is
 * stable and meant for `switch`; `detail` is for people.
 */
export class InitramfsError extends Data.TaggedError("InitramfsError")<{
  readonly reason:
    | "DuplicatePath"
    | "InvalidPath"
    | "PathTooLong"
    | "ParentNotDirectory"
    | "NotARegularFile"
    | "FileTooLarge"
    | "InvalidMode"
    | "InvalidDevice"
    | "InvalidLevel"
    | "Malformed"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `initramfs: ${this.path}: ${this.detail}`
  }
}

/**
 * An EFI stub, a kernel or a UKI that is not usable as such.
 */
export class PortableExecutableError extends Data.TaggedError("PortableExecutableError")<{
  readonly reason:
    | "NotPortableExecutable"
    | "WrongMachine"
    | "NotAnEfiStub"
    | "NotALinuxKernel"
    | "NoEfiStubInKernel"
    | "NoHeaderRoom"
    | "DuplicateSection"
    | "InvalidSection"
    | "Signed"
    | "TooLarge"
    | "MissingSection"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

/**
 * An executable that cannot be changed as was asked.
 */
export class ElfError extends Data.TaggedError("ElfError")<{
  readonly reason: "NotAnExecutable" | "NoSymbol" | "NoSegment"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

/**
 * A program of PID 1 that uses what its image leaves out.
 */
export class LocalesNeeded extends Data.TaggedError("LocalesNeeded")<{
  readonly entry: string
  readonly found: string
}> {
  override get message(): string {
    return `${this.entry}: its bundle has \`${this.found}\`, which needs the data of locales: do without, or set \`locales: true\` in the recipe, which adds 33 MB`
  }
}

/**
 * A disk image that cannot be made from these options, or a file that is not
 * one.
 */
export class DiskImageError extends Data.TaggedError("DiskImageError")<{
  readonly reason: "NoPartitions" | "InvalidOption" | "TooSmall" | "DuplicatePath" | "NotGpt" | "CorruptGpt"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `disk image ${this.path}: ${this.detail}`
  }
}

/**
 * A tar stream that cannot be written or is broken.
 */
export class TarError extends Data.TaggedError("TarError")<{
  readonly reason:
    | "InvalidPath"
    | "DuplicatePath"
    | "ParentNotDirectory"
    | "NotARegularFile"
    | "InvalidMode"
    | "NotATar"
    | "Truncated"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `tar: ${this.path}: ${this.detail}`
  }
}

/**
 * An OCI image recipe that is not valid, or an archive that is broken.
 */
export class OciArchiveError extends Data.TaggedError("OciArchiveError")<{
  readonly reason:
    | "InvalidRecipe"
    | "NotATar"
    | "Truncated"
    | "MissingIndex"
    | "MissingLayout"
    | "MissingBlob"
    | "BadDigest"
    | "BadSize"
    | "BadJson"
    | "NoImage"
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    return `OCI archive ${this.path}: ${this.detail}`
  }
}

/**
 * A component cannot be described in the SBOM.
 */
export class SbomError extends Data.TaggedError("SbomError")<{
  readonly reason: "InvalidComponent" | "DuplicateComponent"
  readonly component: string
  readonly detail: string
}> {
  override get message(): string {
    return `SBOM: component ${this.component}: ${this.detail}`
  }
}

/**
 * A program of the build machine is not installed.
 */
export class MissingTool extends Data.TaggedError("MissingTool")<{
  readonly tool: string
  readonly debianPackage: string
}> {
  override get message(): string {
    return (
      `the program "${this.tool}" is not on PATH (nor in /usr/sbin, /sbin); ` +
      `it is in the Debian package ${this.debianPackage}: apt-get install -y ${this.debianPackage}`
    )
  }
}

/**
 * A program of the build machine ran and failed.
 */
export class ToolFailed extends Data.TaggedError("ToolFailed")<{
  readonly tool: string
  readonly args: ReadonlyArray<string>
  readonly exit: string
  readonly output: string
}> {
  override get message(): string {
    const said = this.output.trim()
    return `${[this.tool, ...this.args].join(" ")}: ${this.exit}${said === "" ? " without a message" : `: ${said}`}`
  }
}

/**
 * Everything that the image writers fail with.
 */
export type ImageError =
  | ImageFileError
  | InitramfsError
  | PortableExecutableError
  | ElfError
  | LocalesNeeded
  | DiskImageError
  | TarError
  | OciArchiveError
  | SbomError
  | MissingTool
  | ToolFailed

const tags: ReadonlySet<string> = new Set<ImageError["_tag"]>([
  "ImageFileError",
  "InitramfsError",
  "PortableExecutableError",
  "ElfError",
  "LocalesNeeded",
  "DiskImageError",
  "TarError",
  "OciArchiveError",
  "SbomError",
  "MissingTool",
  "ToolFailed",
])

/**
 * Is this value one of our errors?
 */
export const isImageError = (u: unknown): u is ImageError =>
  u instanceof Error && "_tag" in u && typeof u._tag === "string" && tags.has(u._tag)

/**
 * Turns what a `node:fs` call threw into an {@link ImageFileError}; our own
 * errors pass unchanged.
 */
export const fromUnknown = (operation: string, path: string, cause: unknown): ImageError => {
  if (isImageError(cause)) return cause
  const code =
    cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "UNKNOWN"
  return new ImageFileError({ operation, path, code, cause })
}

const explain = (code: string, cause: unknown): string => {
  switch (code) {
    case "ENOENT":
      return "no such file or directory"
    case "EACCES":
    case "EPERM":
      return `permission denied (${code})`
    case "ENOSPC":
      return "no space left on the device; free some or choose another output directory"
    case "EISDIR":
      return "it is a directory"
    case "ENOTDIR":
      return "a part of the path is not a directory"
    default:
      return cause instanceof Error ? cause.message : String(cause)
  }
}

/**
 * Runs a synchronous file operation of the build machine; what it throws
 * goes through {@link fromUnknown}.
 */
export const fileOperation = <A>(
  operation: string,
  file: string,
  run: () => A,
): Effect.Effect<A, ImageError> =>
  Effect.try({ try: run, catch: (cause) => fromUnknown(operation, file, cause) })
