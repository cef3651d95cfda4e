import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Cmdline from "@kios/core/Cmdline"
import * as TestMachine from "@kios/core/testing/TestMachine"

describe("split", () => {
  const rows: ReadonlyArray<readonly [string, ReadonlyArray<readonly [string, string]>]> = [
    ["", []],
    ["   ", []],
    ["quiet", [["quiet", ""]]],
    [
      "a=1  b=2\tc=3\n",
      [
        ["a", "1"],
        ["b", "2"],
        ["c", "3"],
      ],
    ],
    [
      'a="two words" b=2',
      [
        ["a", "two words"],
        ["b", "2"],
      ],
    ],
    [
      '"a=two words" b=2',
      [
        ["a", "two words"],
        ["b", "2"],
      ],
    ],
    ["root=UUID=12=34", [["root", "UUID=12=34"]]],
    [
      "console=ttyS0,115200n8 console=tty0",
      [
        ["console", "ttyS0,115200n8"],
        ["console", "tty0"],
      ],
    ],
    ['open="never closed here', [["open", "never closed here"]]],
    ["=x", [["", "x"]]],
  ]
  for (const [raw, expected] of rows)
    it(JSON.stringify(raw), () => assert.deepStrictEqual(Cmdline.split(raw), expected))
})

describe("parse", () => {
  it("has defaults, and leaves to others what is theirs", () => {
    const { problems, values } = Cmdline.parse("console=ttyS0 panic=5 root=/dev/sda1 -- single")
    assert.deepStrictEqual(problems, [])
    assert.deepStrictEqual(values, { logLevel: "info", modules: [] })
  })
  it("reads every key of its own", () => {
    const { problems, values } = Cmdline.parse(
      'datapart="PARTLABEL=my data" kios.log=debug kios.hostname=node-7.example kios.modules=nvme,e1000e kios.watchdog=45',
    )
    assert.deepStrictEqual(problems, [])
    assert.deepStrictEqual(values, {
      datapart: "PARTLABEL=my data",
      hostname: "node-7.example",
      logLevel: "debug",
      modules: ["nvme", "e1000e"],
      watchdog: 45,
    })
  })
  it("the watchdog can be off", () => {
    assert.strictEqual(Cmdline.parse("kios.watchdog=off").values.watchdog, "off")
  })
  it("the last of a repeated key counts, a bad one is passed over", () => {
    const { problems, values } = Cmdline.parse("kios.log=warn kios.log=error kios.log=chatty")
    assert.strictEqual(values.logLevel, "error")
    assert.strictEqual(problems.length, 1)
  })
  const bad: ReadonlyArray<readonly [string, string, RegExp]> = [
    ["kios.log", "chatty", /Expected "debug" \| "info" \| "warn" \| "error"/u],
    ["kios.hostname", "UPPER", /lower-case DNS name \(RFC 1123\)/u],
    ["kios.hostname", "-x", /lower-case DNS name/u],
    ["kios.hostname", "n".repeat(65), /64/u],
    ["kios.modules", "a,,b", /module names separated by commas/u],
    ["kios.watchdog", "4", /off or a number of seconds from 5 to 9999/u],
    ["kios.watchdog", "2m", /off or a number of seconds from 5 to 9999/u],
    ["kios.modules", "../../evil", /module names separated by commas/u],
    ["datapart", "sda1", /expected \/dev\/\.\.\., PARTUUID=, PARTLABEL=, UUID=, LABEL= or none/u],
    ["datapart", "PARTUUID=", /expected \/dev/u],
    [
      "kios.hostnam",
      "x",
      /no such key; kiOS knows datapart, datapart\.grow, kios\.log, kios\.hostname, kios\.modules/u,
    ],
    ["kios.", "", /no such key/u],
  ]
  for (const [key, value, reason] of bad)
    it(`tells what is wrong with ${key}=${value.slice(0, 20)}`, () => {
      const { problems, values } = Cmdline.parse(`quiet ${key}=${value}`)
      assert.deepStrictEqual(values, { logLevel: "info", modules: [] })
      assert.strictEqual(problems.length, 1)
      assert.strictEqual(problems[0]?.key, key)
      assert.strictEqual(problems[0]?.value, value)
      assert.match(problems[0]?.reason ?? "", reason)
      assert.notInclude(problems[0]?.reason ?? "", "\n")
    })
  it("a key that JavaScript objects have is no key of ours", () => {
    assert.deepStrictEqual(Cmdline.parse("__proto__=1 constructor=2 toString=3").problems, [])
  })
  it.prop("never throws, and every word of it is one parameter", [Schema.String], ([raw]) => {
    const { parameters, values } = Cmdline.parse(raw)
    assert.isAtMost(parameters.length, raw.length)
    assert.include(["debug", "info", "warn", "error"], values.logLevel)
  })
  const Word = Schema.String.check(Schema.isPattern(/^[a-z]{1,8}$/u))
  it.prop(
    "what is quoted comes back",
    [Schema.Array(Schema.Tuple([Word, Word])).check(Schema.isMaxLength(5))],
    ([pairs]) => {
      const raw = pairs.map(([key, value]) => `${key}="${value} ${value}"`).join(" ")
      assert.deepStrictEqual(
        Cmdline.parse(raw).parameters,
        pairs.map(([key, value]) => [key, `${value} ${value}`] as const),
      )
    },
  )
})

it.effect("reads /proc/cmdline", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files: { "/proc/cmdline": "kios.log=debug\n" } })
    const cmdline = yield* Cmdline.read.pipe(Effect.provide(machine.layer))
    assert.strictEqual(cmdline.raw, "kios.log=debug")
    assert.strictEqual(cmdline.values.logLevel, "debug")
  }),
)
