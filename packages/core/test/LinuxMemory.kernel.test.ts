import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { seaConfig } from "../../../distro/src/image/Seal.ts"

it.effect("garbage goes back to the kernel when it is asked for, with the options that init ships with", () =>
  Effect.sync(() => {
    // A process of its own: its memory is what is looked at.
    const said = execFileSync(
      process.execPath,
      [
        ...seaConfig("", "").execArgv,
        "--conditions=@kios/source",
        fileURLToPath(new URL("memoryRelease.ts", import.meta.url)),
      ],
      { encoding: "utf8" },
    )
    const { after, before, full } = JSON.parse(said) as Record<"before" | "full" | "after", number>
    // 24 MiB of objects and 32 MiB of malloc's were made and let go of.
    assert.isAbove(full, before + 40 * 1024, said)
    assert.isBelow(after, before + 8 * 1024, said)
  }),
)
