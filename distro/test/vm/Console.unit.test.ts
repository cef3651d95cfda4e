import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Console from "../../src/vm/Console.ts"

const encode = (text: string) => new TextEncoder().encode(text)
const decodeAll = (...chunks: ReadonlyArray<Uint8Array | string>) => {
  const decoder = new Console.LineDecoder({ maxLineLength: 100 })
  const lines = chunks.flatMap((chunk, i) =>
    decoder.push(typeof chunk === "string" ? encode(chunk) : chunk, BigInt(i)),
  )
  return lines.concat(decoder.end(99n))
}
const texts = (...chunks: ReadonlyArray<Uint8Array | string>) => decodeAll(...chunks).map((line) => line.text)

it("takes the kernel's timestamp off, with and without a caller", () => {
  assert.deepStrictEqual(Console.parseKernelTimestamp("[    3.281234] kios: x"), {
    kernelSeconds: 3.281234,
    message: "kios: x",
  })
  assert.strictEqual(Console.parseKernelTimestamp("[   12.000001][    T1] run").message, "run")
  assert.deepStrictEqual(Console.parseKernelTimestamp("[error] x"), { message: "[error] x" })
})

it("ends lines at CR, LF and where the cursor is moved; removes what is not text", () => {
  assert.deepStrictEqual(texts("\u001b[2J\u001b[01;01H\u001b[=3h\u001b[2JBdsDxe: a\r\n"), ["BdsDxe: a"])
  assert.deepStrictEqual(texts("a\r\r\nb\n\rc\rd"), ["a", "b", "c", "d"])
  assert.deepStrictEqual(texts("\u001b[5;1HPress \u001b[1m\u001b[37mESC\u001b[0m\u001b[6;1HShell> "), [
    "Press ESC",
    "Shell>",
  ])
  assert.deepStrictEqual(texts("x\u001b]0;title\u0007y\u001b(Bz\u0000\u0007\tw\n"), ["xyz w"])
})

it("tolerates bytes that are no UTF-8 and characters cut in two", () => {
  assert.deepStrictEqual(texts(new Uint8Array([0x61, 0xff, 0xfe, 0x0a])), ["a\ufffd\ufffd"])
  const euro = encode("€\n")
  assert.deepStrictEqual(texts(euro.slice(0, 1), euro.slice(1)), ["€"])
})

it("bounds a line and says so; marks the last line as partial; keeps the first byte's time", () => {
  const [long, next] = decodeAll("x".repeat(1000), "y\nnext\n")
  assert.deepStrictEqual([long?.text.length, long?.truncated, long?.at], [100, true, 0n])
  assert.deepStrictEqual([next?.text, next?.truncated, next?.index], ["next", false, 1])
  assert.deepStrictEqual(
    decodeAll("login: ").map((l) => [l.text, l.partial]),
    [["login:", true]],
  )
})

it("gives up on escapes that never end", () => {
  assert.deepStrictEqual(
    texts(`\u001b[${"1;".repeat(50)}`, "after\n")
      .at(-1)
      ?.endsWith("after"),
    true,
  )
  assert.deepStrictEqual(texts("\u001b]never closed\n", "after\n"), ["after"])
})

it.prop(
  "any bytes, cut anywhere, give the same bounded lines without control characters",
  [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), Schema.Natural],
  ([bytes, cut]) => {
    const data = Uint8Array.from(bytes)
    const at = data.length === 0 ? 0 : cut % (data.length + 1)
    const whole = texts(data)
    assert.deepStrictEqual(texts(data.slice(0, at), data.slice(at)), whole)
    for (const text of whole) {
      assert.isTrue(text.length > 0 && text.length <= 100)
      // oxlint-disable-next-line no-control-regex
      assert.isFalse(/[\u0000-\u001f\u007f-\u009f]/.test(text))
    }
  },
)

it.effect("keeps the last lines for late readers, then follows, and ends", () =>
  Effect.gen(function* () {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-console-"))
    const tee = path.join(directory, "console.log")
    let time = 0n
    const console = yield* Console.make({ keep: 2, tee, now: () => time++ })
    console.write(encode("1\n2\n3\n"))
    const early = yield* Effect.forkChild(Stream.runCollect(console.lines), { startImmediately: true })
    console.write(encode("4\npart"))
    assert.strictEqual(console.pending(), "part")
    console.end()
    console.write(encode("nobody hears this\n"))
    assert.deepStrictEqual(
      (yield* Fiber.join(early)).map((l) => l.text),
      ["2", "3", "4", "part"],
    )
    const late = yield* Stream.runCollect(console.lines)
    assert.deepStrictEqual(
      late.map((l) => [l.text, l.index, l.partial]),
      [
        ["4", 3, false],
        ["part", 4, true],
      ],
    )
    assert.deepStrictEqual(
      console.tail(1).map((l) => l.text),
      ["part"],
    )
    assert.strictEqual(fs.readFileSync(tee, "utf8"), "1\n2\n3\n4\npart")
    fs.rmSync(directory, { recursive: true })
  }),
)

it.effect("fails clearly when the copy cannot be opened", () =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(Console.make({ tee: "/nonexistent/console.log" }))
    assert.strictEqual(error._tag, "VmPrepareFailed")
    assert.include(error.message, "/nonexistent/console.log")
  }),
)
