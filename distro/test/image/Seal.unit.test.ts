import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import * as Seal from "../../src/image/Seal.ts"
import { failure, scratch } from "./support.ts"

describe("Seal", () => {
  for (const use of [
    `new Intl.DateTimeFormat("de")`,
    `"b".localeCompare("a")`,
    `new Date().toLocaleString()`,
    `"e".normalize("NFC")`,
  ])
    it.live(`a program that uses ${use} is told what it needs`, () =>
      Effect.gen(function* () {
        const directory = yield* scratch
        const entry = path.join(directory, "init.ts")
        fs.writeFileSync(entry, `console.log(${use})\n`)
        const error = yield* failure(
          Seal.seal({ entry, node: "/nowhere/node", directory, output: path.join(directory, "init") }).pipe(
            Effect.provide(CommandRunner.layer),
          ),
        )
        assert.strictEqual(error._tag, "LocalesNeeded")
        assert.include(error.message, "locales: true")
        assert.include(error.message, entry)
      }),
    )
})
