import { Data } from "effect"

/** Bytes for people: `1.5 GB`, `12.3 MB`, `4 KB`. Decimal, as disks are sold. */
export const formatBytes = (bytes: number): string =>
  bytes >= 1e9
    ? `${(bytes / 1e9).toFixed(1)} GB`
    : bytes >= 1e6
      ? `${(bytes / 1e6).toFixed(1)} MB`
      : `${Math.ceil(bytes / 1e3)} KB`

/** A file is not the one that the recipe pins. Nothing of it enters the cache, and no other source is tried. */
export class DigestMismatch extends Data.TaggedError("DigestMismatch")<{
  readonly component: string
  /** The file or module whose digest is wrong. */
  readonly file: string
  /** Where it came from: a URL, a suite, a package. */
  readonly from: string
  readonly expected: string
  readonly got: string
}> {
  override get message() {
    return (
      `${this.component}: ${this.file} from ${this.from} is not the file that the recipe pins.\n` +
      `  expected ${this.expected}\n  got      ${this.got}\n` +
      `Nothing was kept. Either what is served was changed (find out why before going on), ` +
      `or the pin in the recipe is wrong.`
    )
  }
}

/** One source can not be used now: it is offline, or does not have the thing. The next source is tried. */
export class SourceUnavailable extends Data.TaggedError("SourceUnavailable")<{
  readonly source: string
  readonly reason: string
  /** No connection could be made at all, as opposed to an answer that says no. */
  readonly offline: boolean
}> {
  override get message() {
    return this.offline ? `offline: ${this.reason}` : this.reason
  }
}

/** The archive no longer serves the pinned version of a Debian package: what it serves now is taken, unless locked. */
export class PinNotServed extends Data.TaggedError("PinNotServed")<{
  readonly package: string
  readonly suite: string
  readonly wanted: string
  /** The version that is served now; absent when the package is gone. */
  readonly served: string | undefined
}> {
  override get message() {
    return (
      `Debian ${this.suite} no longer serves ${this.package} ${this.wanted}` +
      (this.served === undefined
        ? `: the package is gone from the suite.`
        : `: it serves ${this.served} now.`) +
      ` Run "kios components update" to pin what is served.`
    )
  }
}

/** None of a component's sources could be used. */
export class NotAvailable extends Data.TaggedError("NotAvailable")<{
  readonly component: string
  readonly version: string
  readonly tried: ReadonlyArray<{
    readonly source: string
    readonly reason: string
    readonly offline: boolean
  }>
}> {
  override get message() {
    const offline = this.tried.length > 0 && this.tried.every((attempt) => attempt.offline)
    const variable = `KIOS_COMPONENT_${this.component.toUpperCase().replaceAll("-", "_")}`
    return (
      `${this.component} ${this.version} is not available${offline ? ": this machine seems to be offline" : ""}. Tried:\n` +
      this.tried.map((attempt, index) => `  ${index + 1}. ${attempt.source}: ${attempt.reason}`).join("\n") +
      `\nA copy that you have can be given with ${variable}=/path.`
    )
  }
}

/** No space is left where a component is downloaded, unpacked or built. */
export class DiskFull extends Data.TaggedError("DiskFull")<{
  /** What was being done: "building kubelet". */
  readonly doing: string
  readonly directory: string
  /** Bytes that unprivileged processes can still write there, at the time of the error. */
  readonly freeBytes: number | undefined
}> {
  override get message() {
    const free = this.freeBytes === undefined ? "" : ` (${formatBytes(this.freeBytes)} free)`
    return (
      `No space left on device while ${this.doing}: ${this.directory}${free}. ` +
      `Make room there, or set KIOS_CACHE to a directory on a larger disk.`
    )
  }
}

/** Tools or development files of the build machine that a source needs are not installed. */
export class MissingTool extends Data.TaggedError("MissingTool")<{
  readonly tools: ReadonlyArray<string>
  readonly packages: ReadonlyArray<string>
  /** What they are needed for: "building runc". */
  readonly neededFor: string
}> {
  override get message() {
    return (
      `${this.tools.join(", ")} ${this.tools.length === 1 ? "is" : "are"} needed for ${this.neededFor} and not installed. ` +
      `Install with: apt-get install -y ${this.packages.join(" ")}`
    )
  }
}

/** A stack trace quotes a whole line of minified source. */
const shortened = (line: string): string => (line.length <= 500 ? line : `${line.slice(0, 500)} ...`)

/** A compiler or another tool failed. */
export class BuildFailed extends Data.TaggedError("BuildFailed")<{
  readonly component: string
  readonly command: string
  /** Exit status, or the name of the signal that ended it. */
  readonly exit: number | string
  /** The last lines of its output. */
  readonly tail: ReadonlyArray<string>
}> {
  override get message() {
    return (
      `${this.component}: \`${this.command}\` ` +
      (typeof this.exit === "number" ? `exited with ${this.exit}` : `was ended by ${this.exit}`) +
      (this.tail.length === 0
        ? " without any output."
        : `:\n${this.tail.map((line) => `  ${shortened(line)}`).join("\n")}`)
    )
  }
}

/** A source gave something, but not the file that the component promises. */
export class FileMissing extends Data.TaggedError("FileMissing")<{
  readonly component: string
  readonly source: string
  readonly file: string
}> {
  override get message() {
    return `${this.component}: ${this.file} is not in ${this.source}. The recipe and what the source gives have drifted apart.`
  }
}

/** A file or directory on this machine can not be read or written. */
export class FileFailure extends Data.TaggedError("FileFailure")<{
  readonly doing: string
  readonly path: string
  readonly errno: string
}> {
  override get message() {
    const hint =
      this.errno === "EACCES" || this.errno === "EPERM" || this.errno === "EROFS"
        ? ` If this is the cache, set KIOS_CACHE to a directory that you may write to.`
        : ""
    return `${this.doing} failed: ${this.path}: ${this.errno}.${hint}`
  }
}

/** A recipe, a pin or an override is written wrongly. */
export class RecipeInvalid extends Data.TaggedError("RecipeInvalid")<{
  /** The file or variable that is wrong. */
  readonly where: string
  readonly issue: string
}> {
  override get message() {
    return `${this.where}: ${this.issue}`
  }
}

/** Everything that resolving a component can fail with. */
export type ComponentError =
  | DigestMismatch
  | SourceUnavailable
  | PinNotServed
  | NotAvailable
  | DiskFull
  | MissingTool
  | BuildFailed
  | FileMissing
  | FileFailure
  | RecipeInvalid
