import { Effect, type Scope } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { CommandResult, CommandRunner } from "../CommandRunner.ts"
import { type ComponentError, MissingTool, SourceUnavailable } from "../ComponentError.ts"
import { CacheLocation, Environment } from "../Environment.ts"
import { io } from "../Files.ts"
import { lockFile } from "../LockFile.ts"
import { runTool } from "../Tools.ts"
import { debianMirror } from "./DebianMirror.ts"

/** What a suite serves of a package now. */
export interface Candidate {
  readonly package: string
  readonly version: string
  /** Of the .deb, hex. */
  readonly sha256: string
  /** The Depends field, for metapackages that name another. */
  readonly depends: string
}

/** The outcome of asking apt for packages. */
export type AptDownload =
  | { readonly _tag: "Downloaded" }
  /** apt's index of the suite does not have this version (or the archive does not have the file). */
  | {
      readonly _tag: "NotServed"
      readonly detail: string
      /** It was the archive that said so, and not the index. */
      readonly fromArchive: boolean
    }

/**
 * apt with its own lists, sources and cache: it knows one suite of Debian and
 * nothing of the machine's own packages, releases or pinning. Proxies that the
 * machine's apt is configured for are used. See apt.conf(5), apt-secure(8).
 */
export interface AptRoot {
  readonly suite: string
  /** Refresh the index of the suite. */
  readonly update: Effect.Effect<void, ComponentError, CommandRunner>
  /** Refresh the index if it is older than an hour, or known to be too old. */
  readonly refresh: (stale: boolean) => Effect.Effect<void, ComponentError, CommandRunner>
  /** Put `name=version` .deb files into a directory. Nothing is installed. */
  readonly download: (
    packages: ReadonlyArray<{ readonly name: string; readonly version: string }>,
    directory: string,
  ) => Effect.Effect<AptDownload, ComponentError, CommandRunner>
  /** What the index has of some packages, by their names; it may have none of one. */
  readonly candidates: (
    names: ReadonlyArray<string>,
  ) => Effect.Effect<ReadonlyMap<string, Candidate>, ComponentError, CommandRunner>
}

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

/** Milliseconds that an index counts as fresh: Debian's archive changes four times a day. */
const FRESH = 3_600_000

/** Commands that a machine's configuration has apt run around an update. */
const HOOKS = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"]

const NO_CONNECTION =
  /could not resolve|temporary failure resolving|could not connect|connection refused|network is unreachable|connection timed out|connection failed|unable to connect|no route to host/iu

/** The messages of apt that say what went wrong, in one line. */
const complaint = (result: CommandResult): string => {
  const lines = result.tail.filter((line) => /^(E|W|Err)[: ]/u.test(line))
  return (lines.length === 0 ? result.tail.slice(-3) : lines.slice(0, 3)).join("; ")
}

/** The packages of `apt-cache show`, by name: the first paragraph of each counts. */
export const parseShow = (text: string): ReadonlyMap<string, Candidate> => {
  const found = new Map<string, Candidate>()
  for (const paragraph of text.split(/\n\s*\n/u)) {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, "mu").exec(paragraph)?.[1]?.trim()
    const [name, version, sha256] = [field("Package"), field("Version"), field("SHA256")]
    if (name === undefined || version === undefined || sha256 === undefined || found.has(name)) continue
    found.set(name, { package: name, version, sha256, depends: field("Depends") ?? "" })
  }
  return found
}

/**
 * Open the private apt root of a suite, making it if need be. It is locked for
 * the life of the scope: apt does not allow two at a time.
 *
 * @param options.suite Code name: `trixie`.
 * @param options.arch Debian's name of the architecture: `amd64`.
 * @param options.component What it is opened for, in progress and errors.
 * @param options.keyring Debian's archive keys; the package debian-archive-keyring's by default.
 */
export const openAptRoot = (options: {
  readonly suite: string
  readonly arch: string
  readonly component: string
  readonly etcApt?: string
  readonly keyring?: string
}): Effect.Effect<AptRoot, ComponentError, CommandRunner | Scope.Scope> =>
  Effect.gen(function* () {
    const { arch, component, suite } = options
    const keyring = options.keyring ?? KEYRING
    const cache = yield* CacheLocation
    const environment = yield* Environment
    const source = `Debian ${suite}`
    const mirror = yield* debianMirror(options.etcApt)
    const name = `${suite}-${arch}`
    const root = path.join(cache.apt, name)
    yield* lockFile(path.join(cache.locks, `apt-${name}`), component, `using apt for ${suite}`)
    const keys = yield* Effect.promise(() =>
      fsp.access(keyring).then(
        () => true,
        () => false,
      ),
    )
    if (!keys) {
      const packages = ["debian-archive-keyring"]
      return yield* new MissingTool({
        tools: [keyring],
        packages,
        neededFor: `checking signatures of ${source}`,
      })
    }
    const list = path.join(root, "sources.list")
    const stamp = path.join(root, "updated")
    const configuration = path.join(root, "first.conf")
    const last = path.join(root, "last.conf")
    yield* io("making an apt root", root, async () => {
      for (const directory of ["state/lists/partial", "cache/archives/partial"]) {
        await fsp.mkdir(path.join(root, directory), { recursive: true })
      }
      await fsp.writeFile(list, `deb [signed-by=${keyring} arch=${arch}] ${mirror} ${suite} main\n`)
      await fsp.writeFile(path.join(root, "status"), "")
      // apt.conf(5): APT_CONFIG is read first, and names the file that is read last. There the hooks that
      // machines run after an update (docker-clean, appstream) are dropped; lists can be cleared in files only.
      await fsp.writeFile(configuration, `Dir::Etc::main "${last}";\n`)
      const main = path.join(options.etcApt ?? "/etc/apt", "apt.conf")
      const own = await fsp.readFile(main, "utf8").catch(() => "")
      await fsp.writeFile(last, `${own}\n${HOOKS.map((hook) => `#clear ${hook};\n`).join("")}`)
    })
    const settings = {
      "Dir::Etc::SourceList": list,
      "Dir::Etc::SourceParts": "-",
      "Dir::Etc::Preferences": "/dev/null",
      "Dir::Etc::PreferencesParts": "/dev/null",
      "Dir::State": path.join(root, "state"),
      "Dir::State::status": path.join(root, "status"),
      "Dir::Cache": path.join(root, "cache"),
      "APT::Architecture": arch,
      "APT::Architectures": arch,
      "APT::Default-Release": "",
      // Downloads go to directories of this user, where apt's own user may not write.
      "APT::Sandbox::User": "root",
      "APT::Update::Error-Mode": "any",
      "Acquire::Languages": "none",
      "Acquire::Retries": "1",
      "Acquire::http::Timeout": "30",
      "Acquire::https::Timeout": "30",
    }
    const flags = Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`])
    const apt = (command: "apt-get" | "apt-cache", doing: string, args: ReadonlyArray<string>, cwd: string) =>
      runTool({
        component,
        doing,
        writesTo: command === "apt-get" ? cwd : root,
        command,
        args: [...flags, ...args],
        cwd,
        env: { ...environment, APT_CONFIG: configuration, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
        capture: command === "apt-cache",
      })
    const refuse = (result: CommandResult) => {
      const offline = result.tail.some((line) => NO_CONNECTION.test(line))
      return Effect.fail(
        new SourceUnavailable({ source, reason: `apt (${mirror}): ${complaint(result)}`, offline }),
      )
    }
    const update = Effect.gen(function* () {
      const result = yield* apt("apt-get", `reading the index of ${source}`, ["update"], root)
      if (result.exit !== 0) return yield* refuse(result)
      yield* io("writing", stamp, () => fsp.writeFile(stamp, String(Date.now())))
    })
    const lists = yield* io("reading", root, () => fsp.readdir(path.join(root, "state/lists")))
    // A list that was made for another mirror does not count for apt: let it make its own.
    const marker = path.join(root, "mirror")
    const known = yield* Effect.promise(() => fsp.readFile(marker, "utf8").catch(() => ""))
    if (known !== mirror || !lists.some((file) => /_(Packages|InRelease)/u.test(file))) {
      yield* update
      yield* io("writing", marker, () => fsp.writeFile(marker, mirror))
    }
    return {
      suite,
      update,
      refresh: (stale) =>
        Effect.gen(function* () {
          const at = Number(yield* Effect.promise(() => fsp.readFile(stamp, "utf8").catch(() => "0")))
          const age = Date.now() - at
          if (stale || age < 0 || age > FRESH) yield* update
        }),
      download: (packages, directory) =>
        Effect.gen(function* () {
          const wanted = packages.map((item) => `${item.name}:${arch}=${item.version}`)
          const doing = `downloading ${packages.map((item) => item.name).join(", ")}`
          const result = yield* apt("apt-get", doing, ["download", ...wanted], directory)
          if (result.exit === 0) return { _tag: "Downloaded" }
          const gone =
            /Version .* was not found|Unable to locate package|Can't select|404 {2}?Not Found|404 /u
          const line = result.tail.find((text) => gone.test(text))
          if (line !== undefined) {
            return { _tag: "NotServed", detail: line, fromArchive: /404 /u.test(line) }
          }
          return yield* refuse(result)
        }),
      candidates: (names) =>
        Effect.gen(function* () {
          if (names.length === 0) return new Map()
          const args = ["show", "--no-all-versions", ...new Set(names)]
          const result = yield* apt("apt-cache", `looking up ${names.join(", ")}`, args, root)
          // It exits with 100 when it does not know one of them, and shows the others.
          return parseShow(result.stdout)
        }),
    }
  })
