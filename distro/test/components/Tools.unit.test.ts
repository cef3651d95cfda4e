import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as os from "node:os"
import { BuildFailed } from "../../src/components/ComponentError.ts"
import { fullDirectory } from "../../src/components/Tools.ts"

const source = `${"const a=1;".repeat(300)}ENOSPC="no space left on device"`

it.effect("a stack trace that quotes a program with the words of a full disk is not taken for one", () =>
  Effect.gen(function* () {
    const lines = [source, "ReferenceError: exports is not defined"]
    assert.isUndefined(yield* fullDirectory(lines, os.tmpdir()))
    assert.isDefined(yield* fullDirectory([...lines, "cp: error: No space left on device"], os.tmpdir()))
  }),
)

it("an error shows the beginning of such a line only", () => {
  const error = new BuildFailed({ component: "init", command: "node", exit: 1, tail: [source, "at main"] })
  assert.isBelow(error.message.length, 700)
  assert.include(error.message, "at main")
})
