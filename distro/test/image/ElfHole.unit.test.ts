import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as ElfHole from "../../src/image/ElfHole.ts"
import { failure, scratch } from "./support.ts"

// Data before, in and behind what is taken out, a variable of the next segment, and a call through the tables.
const source = `
#include <stdio.h>
__attribute__((visibility("default"))) const unsigned char hole[200000] = {[0 ... 199999] = 7};
const unsigned char neighbour[9000] = {[0 ... 8999] = 3};
int variable = 41;
int main(void) {
    int sum = 0, around = 0;
    for (int i = 0; i < 200000; i++) sum += ((volatile const unsigned char *)hole)[i];
    for (int i = 0; i < 9000; i++) around += ((volatile const unsigned char *)neighbour)[i];
    variable++;
    printf("%d %d %d %s\\n", sum, around, variable, "text");
    return 0;
}
`

/** Compiles it; a note's program header is made a free one, as the linker leaves no room. */
const compile = (directory: string, kind: "-no-pie" | "-pie"): string => {
  const file = path.join(directory, "program")
  fs.writeFileSync(`${file}.c`, source)
  execFileSync("gcc", ["-O1", "-w", "-rdynamic", kind, "-Wl,--build-id", "-o", file, `${file}.c`])
  const elf = fs.readFileSync(file)
  const table = Number(elf.readBigUInt64LE(32))
  const headers = Array.from({ length: elf.readUInt16LE(56) }, (_, index) => table + index * 56)
  const note = headers.find((at) => elf.readUInt32LE(at) === 4)
  assert.isDefined(note)
  elf.writeUInt32LE(0, note)
  fs.writeFileSync(file, elf)
  return file
}

describe("ElfHole", () => {
  for (const kind of ["-no-pie", "-pie"] as const) {
    it.live(`what is left works as before, and the hole is zeros, ${kind}`, () =>
      Effect.gen(function* () {
        const file = compile(yield* scratch, kind)
        assert.strictEqual(execFileSync(file, { encoding: "utf8" }), "1400000 27000 42 text\n")
        const before = fs.statSync(file)
        const { bytes, symbol } = yield* ElfHole.cut(file, /^hole$/u)
        assert.strictEqual(symbol, "hole")
        assert.strictEqual(bytes % 4096, 0)
        assert.isAbove(bytes, 200_000 - 2 * 4096)
        const after = fs.statSync(file)
        assert.strictEqual(before.size - after.size, bytes)
        assert.strictEqual(after.mode, before.mode)
        assert.strictEqual(
          execFileSync(file, { encoding: "utf8" }),
          `${(200_000 - bytes) * 7} 27000 42 text\n`,
        )
        assert.deepStrictEqual(fs.readdirSync(path.dirname(file)).toSorted(), ["program", "program.c"])
      }),
    )
  }

  it.live("what cannot be done is said, and the file is as it was", () =>
    Effect.gen(function* () {
      const file = compile(yield* scratch, "-pie")
      const whole = fs.readFileSync(file)
      const reasons: Array<string> = []
      const attempt = function* (bytes: Buffer, symbol: RegExp) {
        fs.writeFileSync(file, bytes)
        const error = yield* failure(ElfHole.cut(file, symbol))
        assert.include(error.message, file)
        assert.isTrue(fs.readFileSync(file).equals(bytes))
        reasons.push(error._tag === "ElfError" ? error.reason : error._tag)
      }
      yield* attempt(whole, /^no-such-thing$/u)
      // Too small to be found worth it.
      yield* attempt(whole, /^main$/u)
      yield* attempt(Buffer.from("#!/bin/sh\n"), /^hole$/u)
      const stripped = Buffer.from(whole)
      stripped.writeUInt16LE(0, 60)
      yield* attempt(stripped, /^hole$/u)
      // The free program header is taken away.
      const full = Buffer.from(whole)
      const table = Number(full.readBigUInt64LE(32))
      for (let at = table; at < table + full.readUInt16LE(56) * 56; at += 56)
        if (full.readUInt32LE(at) === 0) full.writeUInt32LE(4, at)
      yield* attempt(full, /^hole$/u)
      assert.deepStrictEqual(reasons, ["NoSymbol", "NoSymbol", "NotAnExecutable", "NoSymbol", "NoSegment"])
      fs.rmSync(file)
      assert.strictEqual((yield* failure(ElfHole.cut(file, /^hole$/u)))._tag, "ImageFileError")
    }),
  )
})
