import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { parse } from "../memory/Idle.ts"
import { halve } from "../memory/Least.ts"

describe("the least memory", () => {
  const range = { low: 256, high: 1536, step: 32 }
  const search = (least: number) => {
    const tried: Array<number> = []
    const works = (size: number) =>
      Effect.sync(() => {
        tried.push(size)
        return size >= least
      })
    return Effect.map(halve(range, works), (found) => ({ found, tried }))
  }

  it.effect("is found for each size that there is", () =>
    Effect.gen(function* () {
      for (let size = range.low; size <= range.high; size += range.step) {
        const { found, tried } = yield* search(size)
        assert.strictEqual(found, size)
        assert.isAtMost(tried.length, 8)
        assert.strictEqual(new Set(tried).size, tried.length)
      }
    }),
  )

  it.effect("is none when the most does not do", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* search(1537), { found: undefined, tried: [1536] })
    }),
  )
})

it("reads the medians of what the guest printed", () => {
  const once = (available: number, rss: number) =>
    [
      `MemTotal:        1500000 kB`,
      `MemAvailable:    ${available} kB`,
      `AnonPages:        200000 kB`,
      `VmRSS:\t   ${rss} kB`,
      `RssAnon:\t   30000 kB`,
      `RssFile:\t   50000 kB`,
      `RssShmem:\t       0 kB`,
    ].join("\n")
  const reading = parse([once(900, 3), once(1000, 1), once(1100, 2)].join("\n"))
  assert.deepStrictEqual(reading, {
    MemTotal: 1_500_000,
    MemAvailable: 1000,
    AnonPages: 200_000,
    VmRSS: 2,
    RssAnon: 30_000,
    RssFile: 50_000,
    RssShmem: 0,
  })
})
