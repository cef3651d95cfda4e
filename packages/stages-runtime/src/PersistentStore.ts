/**
 * What outlives a panic: the kernel hands the end of its log to pstore, and the
 * firmware's variables keep it. Documentation/ABI/testing/pstore of the kernel.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { type PersistedLog, PersistentStore } from "@kios/core/capabilities/PersistentStore"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { alreadyLoaded, loadOne } from "./internal/oneModule.ts"

/**
 * The driver that keeps logs in EFI variables.
 *
 * @example
 * ```ts
 * import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
 *
 * const inImage = ["overlay", PersistentStore.module]
 * ```
 */
export const module = "efi_pstore"

const DIRECTORY = "/sys/fs/pstore"
const BACKEND = "/sys/module/pstore/parameters/backend"
// A log is some ten parts of 1 to 2 KiB each; a machine that dies again and again fills its firmware's store.
const MOST_FILES = 200

/** One file of pstore: a part of a log, the last part first. */
interface Part {
  readonly name: string
  readonly at: number
  readonly count: string
  readonly reason: string
  readonly part: number
  readonly text: string
}

/**
 * Reads a file of pstore: `dmesg-efi_pstore-ID`, whose first line is
 * `Panic#1 Part2`; ID is (seconds * 100 + part) * 1000 + count
 * (drivers/firmware/efi/efi-pstore.c). Undefined for what is no part of a log.
 */
const parsePart = (name: string, content: string): Part | undefined => {
  const [, id] = /^dmesg-(?:efi_pstore|.*)-(\d+)$/u.exec(name) ?? []
  const [head, reason, count, part] = /^(\w[\w ]*)#(\d+) Part(\d+)\n/u.exec(content) ?? []
  if (id === undefined || head === undefined) return undefined
  return {
    name,
    at: Number(BigInt(id) / 100_000n) * 1000,
    count: count ?? "",
    reason: reason ?? "",
    part: Number(part),
    text: content.slice(head.length),
  }
}

/**
 * Puts the parts of logs together, by name of their file, oldest log first. A
 * log is written from its end: its last lines are part 1, and its parts follow
 * one another, maybe over the turn of a second.
 *
 * @example
 * ```ts
 * import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
 *
 * const logs = PersistentStore.join(
 *   new Map([["dmesg-efi_pstore-178000000001001", "Panic#1 Part1\n<0>[    5.1] Kernel panic - not syncing: Oops"]]),
 * )
 * logs[0]?.reason // "Panic"
 * ```
 */
export const join = (files: ReadonlyMap<string, string>): ReadonlyArray<PersistedLog> => {
  const parts = [...files]
    .flatMap(([name, content]) => parsePart(name, content) ?? [])
    .toSorted((a, b) => a.at - b.at || a.part - b.part || Number(a.count) - Number(b.count))
  // An oops that becomes a panic leaves two logs in one second: each is told by its reason and count.
  const open = new Map<string, Array<Part>>()
  const logs: Array<Array<Part>> = []
  for (const part of parts) {
    const key = `${part.reason}#${part.count}`
    const log = open.get(key)
    const before = log?.at(-1)
    if (log !== undefined && before !== undefined && part.part > before.part) log.push(part)
    else {
      const begun = [part]
      open.set(key, begun)
      logs.push(begun)
    }
  }
  return logs.map((log) => ({
    at: log[0]?.at ?? 0,
    reason: log[0]?.reason ?? "",
    text: log
      .toReversed()
      .map(({ text }) => text.replace(/\n*$/u, "\n"))
      .join(""),
    files: log.map(({ name }) => `${DIRECTORY}/${name}`),
  }))
}

/**
 * The stage. It comes as early as it can: what dies before it leaves its cause
 * on the console only.
 *
 * @example
 * ```ts
 * import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
 *
 * const waitsFor = PersistentStore.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = Stage.make({
  name: "persistent-store",
  description: "keep the end of the kernel's log in the firmware when the machine dies",
  criticality: "optional",
  requires: [PseudoFilesystems],
  provides: [PersistentStore],
  tolerates: [
    alreadyLoaded,
    { operation: "readText", path: /^\/sys\/fs\/pstore\//u, because: "another part may be readable" },
  ],
  layer: Layer.effect(
    PersistentStore,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const current = Effect.map(kernel.readText(BACKEND), (text) => {
        const name = text.trim()
        // What printk makes of a null pointer.
        return name === "" || name === "(null)" ? undefined : name
      })
      // Some machines have another one, built in.
      let backend = yield* current
      if (backend === undefined && (yield* loadOne(module))) backend = yield* current
      if (backend === undefined)
        yield* Effect.logWarning(
          "this machine has nothing to keep its log in: when it dies, nothing will tell why",
        )
      const names = backend === undefined ? [] : yield* kernel.readDirectory(DIRECTORY)
      const files = new Map<string, string>()
      for (const name of names.slice(0, MOST_FILES)) {
        const text = yield* Effect.catch(kernel.readText(`${DIRECTORY}/${name}`), (error) =>
          Effect.as(Effect.logWarning(error.message), undefined),
        )
        if (text !== undefined) files.set(name, text)
      }
      return { backend, logs: join(files) }
    }),
  ),
})
