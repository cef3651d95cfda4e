// What it costs to have images imported: time and memory of init's client and of containerd, for 1, 10 and 50
// images of 2 MB, and again when all of them are there, as on a node with a data partition that boots again.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { promisify } from "node:util"
import { record, scaled } from "../../../core/test/support/Scale.ts"
import { tempDir } from "./support/http2Server.ts"
import { writeOciArchive } from "./support/ociArchive.ts"
import { containerdBinary, startContainerd } from "./support/realContainerd.ts"

const binary = containerdBinary()
const MIB = 1024

interface Pass {
  readonly imported: number
  readonly ms: number
  /** KiB, before and at most. */
  readonly before: number
  readonly peak: number
}

/** Imports what is in the directory by a process that runs as init does. */
const pass = (address: string, directory: string): Effect.Effect<Pass> =>
  Effect.promise(async () => {
    const script = path.join(import.meta.dirname, "support/importer.ts")
    const like = ["--max-semi-space-size=2"]
    const args = [...like, "--conditions=@kios/source", script, address, directory]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    return JSON.parse(stdout) as Pass
  })

const kilobytes = (pid: number, field: string) =>
  Number(
    new RegExp(`^${field}:\\s*(\\d+)`, "mu").exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0,
  )

/** Imports `count` images into a containerd that has none, then once more. */
const measure = Effect.fnUntraced(function* (count: number) {
  const directory = yield* tempDir
  const archives = path.join(directory, "archives")
  fs.mkdirSync(archives)
  for (let index = 0; index < count; index++) {
    const name = `image-${String(index).padStart(2, "0")}`
    writeOciArchive(path.join(archives, `${name}.tar`), {
      name: `kios.test/${name}:1`,
      // Each with a layer of its own.
      layerBytes: 2_000_000 + index,
    })
  }
  const containerd = yield* startContainerd(binary!, directory)
  const idle = kilobytes(containerd.pid(), "VmRSS")
  const first = yield* pass(containerd.address, archives)
  const peak = kilobytes(containerd.pid(), "VmHWM")
  // A node that boots again has a new containerd.
  yield* containerd.restart
  const second = yield* pass(containerd.address, archives)
  return { count, first, second, containerd: { idle, peak } }
}, Effect.scoped)

describe.skipIf(binary === undefined)("images by the dozen", () => {
  it.live(
    "memory does not grow with their number, and the second time nothing is imported",
    () =>
      Effect.gen(function* () {
        const figures: Record<string, number> = {}
        const peaks: Array<number> = []
        for (const count of [1, 10, scaled(20, 50)]) {
          const { containerd, first, second } = yield* measure(count)
          assert.strictEqual(first.imported, count)
          assert.strictEqual(second.imported, 0)
          peaks.push(first.peak - first.before)
          figures[`${count}: import (ms)`] = first.ms
          figures[`${count}: again (ms)`] = second.ms
          figures[`${count}: client, more at most (KiB)`] = first.peak - first.before
          figures[`${count}: containerd, idle (KiB)`] = containerd.idle
          figures[`${count}: containerd, at most (KiB)`] = containerd.peak
          // 40 or 100 MB of archives went through it.
          assert.isBelow(containerd.peak - containerd.idle, 40 * MIB, JSON.stringify(figures))
        }
        record("image-imports", { figures })
        if (process.env["KIOS_TEST_VERBOSE"] !== undefined) console.log(figures)
        // The young generation is 6 MiB, and a buffer of a quarter of a MiB is for each import.
        assert.isBelow(Math.max(...peaks), 32 * MIB, JSON.stringify(figures))
      }),
    300_000,
  )
})
