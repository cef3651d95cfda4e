import { Context, Effect } from "effect"
import * as os from "node:os"
import * as path from "node:path"

/**
 * The environment variables of the build. A reference and not `process.env`
 * itself, so that a test can say what the machine looks like.
 *
 * @example
 * ```ts
 * import { CacheLocation, Environment } from "@kios/distro/components/Environment"
 * import { Effect } from "effect"
 *
 * const cache = CacheLocation.pipe(
 *   Effect.provideService(Environment, { PATH: "/usr/bin", KIOS_CACHE: "/tmp/cache" }),
 * )
 * ```
 */
export const Environment = Context.Reference<Readonly<Record<string, string | undefined>>>(
  "@kios/distro/components/Environment",
  { defaultValue: () => process.env },
)

/**
 * Whether nothing but what is pinned may be built with: `KIOS_LOCKED=1`, which
 * `kios build --locked` sets.
 *
 * @example
 * ```ts
 * import { isLocked } from "@kios/distro/components/Environment"
 *
 * isLocked({ KIOS_LOCKED: "1" }) // true
 * ```
 */
export const isLocked = (environment: Readonly<Record<string, string | undefined>>): boolean =>
  !["", "0", undefined].includes(environment["KIOS_LOCKED"])

/** The directories of the cache, all below `root` and thus on one filesystem: publishing is a rename. */
export interface CachePaths {
  /** `$KIOS_CACHE`, else `$XDG_CACHE_HOME/kios`, else `~/.cache/kios`. */
  readonly root: string
  /** Finished components, one directory each: `<name>-<version>-<key>`. */
  readonly components: string
  /** Work in progress; swept of what dead processes left behind. */
  readonly scratch: string
  /** Lock files, one per component key and one per apt root. */
  readonly locks: string
  /** Private apt roots, one per suite and architecture. */
  readonly apt: string
}

/**
 * Where the cache is. An empty variable counts as unset, and a relative
 * `XDG_CACHE_HOME` is ignored, as the XDG Base Directory Specification says.
 *
 * @example
 * ```ts
 * import { cachePaths } from "@kios/distro/components/Environment"
 *
 * cachePaths({ KIOS_CACHE: "/var/cache/kios" }).components // "/var/cache/kios/components"
 * ```
 */
export const cachePaths = (environment: Readonly<Record<string, string | undefined>>): CachePaths => {
  const xdg = environment["XDG_CACHE_HOME"]
  const home = environment["HOME"] || os.homedir()
  const root = environment["KIOS_CACHE"]
    ? path.resolve(environment["KIOS_CACHE"])
    : xdg && path.isAbsolute(xdg)
      ? path.join(xdg, "kios")
      : path.join(home, ".cache", "kios")
  return {
    root,
    components: path.join(root, "components"),
    scratch: path.join(root, "scratch"),
    locks: path.join(root, "locks"),
    apt: path.join(root, "apt"),
  }
}

/**
 * The cache of this build, by {@link Environment}.
 *
 * @example
 * ```ts
 * import { CacheLocation } from "@kios/distro/components/Environment"
 * import { Effect } from "effect"
 *
 * const tell = Effect.flatMap(CacheLocation, ({ root }) => Effect.log(`components are kept in ${root}`))
 * ```
 */
export const CacheLocation: Effect.Effect<CachePaths> = Effect.map(Environment, cachePaths)
