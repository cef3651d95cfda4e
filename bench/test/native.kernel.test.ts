/** The native bench on this machine: both inits hand over as PID 1 of namespaces, and leave nothing behind. */
import { NodeServices } from "@effect/platform-node"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { recipe } from "@kios/distro/recipe"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as NativeRun from "../native/NativeRun.ts"
import * as NativeTree from "../native/NativeTree.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-native-"))),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true })),
)

const services = Layer.mergeAll(NodeServices.layer, ComponentStore.live, CommandRunner.layer)

describe("the native bench", () => {
  it.live(
    "hands over from both inits, and from one with ten more stages",
    () =>
      Effect.gen(function* () {
        const own = yield* directory
        const mounts = fs.readFileSync("/proc/self/mountinfo", "utf8")
        const plain = (yield* NativeTree.make(recipe, path.join(own, "plain"))).trees
        const more = (yield* NativeTree.make(recipe, path.join(own, "more"), 10)).trees
        const runs = [
          yield* NativeRun.run(plain, "kios"),
          yield* NativeRun.run(plain, "floor"),
          yield* NativeRun.run(more, "kios"),
        ]
        for (const { processorSeconds, seconds } of runs) {
          assert.isAbove(seconds, 0)
          assert.isAbove(processorSeconds, 0)
        }
        assert.strictEqual(fs.readFileSync("/proc/self/mountinfo", "utf8"), mounts)
        const groups = fs
          .readFileSync("/proc/self/mounts", "utf8")
          .split("\n")
          .map((line) => line.split(" "))
        const [, root = ""] = groups.find(([, , fstype]) => fstype === "cgroup2") ?? []
        assert.notInclude(fs.readdirSync(root).join(" "), "kios-bench-")
        assert.notInclude(
          fs.readdirSync(new URL("../native", import.meta.url)).join(" "),
          ".init-",
          "the entry that was made is removed",
        )
      }).pipe(Effect.scoped, Effect.provide(services)),
    300_000,
  )

  it.live("an init that does not start is told with what it said", () =>
    Effect.gen(function* () {
      const own = yield* directory
      const tree = path.join(own, "kios")
      fs.mkdirSync(path.join(tree, "dev"), { recursive: true })
      fs.mkdirSync(path.join(tree, "old"))
      const trees = { kios: tree, floor: tree, launcher: "/nowhere/stamp", socket: "kios-bench-none" }
      const error = yield* Effect.flip(NativeRun.run(trees, "kios"))
      assert.strictEqual(error._tag, "HandoverFailed")
      assert.match(error.message, /kios did not hand over .*\/nowhere\/stamp/su)
    }).pipe(Effect.scoped),
  )
})
