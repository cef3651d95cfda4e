// What becomes of the output of processes on the real kernel: nobody who writes waits, nothing grows without end.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import type { OutputSpec } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"

const kernel = LinuxKernel.make()
const env = { PATH: "/usr/bin:/bin" }
const sh = (script: string) => ({ command: "/bin/sh", args: ["-c", script], env })
const openFiles = () => fs.readdirSync("/proc/self/fd").length

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-output-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true })),
)

/** Fails unless it holds within 20 seconds. */
const until = (what: string, holds: () => boolean) =>
  Effect.sync(holds).pipe(
    Effect.andThen((held) => (held ? Effect.void : Effect.fail(new Error(what)))),
    Effect.retry(Schedule.spaced("10 millis").pipe(Schedule.upTo({ duration: "20 seconds" }))),
  )

/** Runs a script to its end; everything it wrote has been taken in then. */
const run = Effect.fnUntraced(function* (script: string, spec: OutputSpec) {
  const output = yield* kernel.openOutput(spec)
  const child = yield* kernel.spawn({ ...sh(script), output })
  const status = yield* child.exit
  output.flush()
  return status
})

/** Reads a FIFO without waiting for it. */
const reader = (fifo: string) => {
  const fd = fs.openSync(fifo, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  const buffer = Buffer.alloc(65_536)
  let text = ""
  return {
    close: () => fs.closeSync(fd),
    read: () => {
      try {
        for (;;) {
          const count = fs.readSync(fd, buffer)
          if (count === 0) break
          text += buffer.toString("utf8", 0, count)
        }
      } catch {
        // EAGAIN: not now.
      }
      return text
    },
  }
}

describe("lines", () => {
  it.live("of stdout and stderr come in the order in which they were written", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      yield* run("for i in $(seq 200); do echo o$i; echo e$i >&2; done; printf 'no end'", {
        onLine: (line) => lines.push(line),
      })
      assert.deepStrictEqual(lines, [
        ...Array.from({ length: 200 }, (_, n) => [`o${n + 1}`, `e${n + 1}`]).flat(),
        "no end",
      ])
    }),
  )

  it.live("are whole characters, and cut where they would never end", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      yield* run(
        `printf 'gr\\303'; sleep 0.05; printf '\\266\\303\\237e\\n'; head -c 100000 /dev/zero | tr '\\0' x`,
        {
          onLine: (line) => lines.push(line),
        },
      )
      assert.strictEqual(lines[0], "größe")
      assert.isTrue(lines.slice(1).every((line) => line.length <= 4096))
    }),
  )

  it.live("are not lost with what a process leaves behind, which may go on writing", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const output = yield* kernel.openOutput({ onLine: (line) => lines.push(line) })
      const child = yield* kernel.spawn({
        ...sh("(sleep 0.2; echo later; sleep 0.2; echo last) & echo first"),
        output,
      })
      yield* child.exit
      output.flush()
      assert.include(lines, "first")
      yield* until("what is left writes", () => lines.includes("last"))
    }),
  )
})

describe("descriptors", () => {
  it.live("a run costs none, and closing the output gives all back", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const fifo = path.join(directory, "fifo")
      yield* kernel.makeFifo(fifo)
      // The first use of koffi and of the network module opens some for good.
      yield* Effect.scoped(run("echo x", {}))
      const before = openFiles()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const log = { path: path.join(directory, "log"), maxBytes: 64 }
          const output = yield* kernel.openOutput({ fifo, log, onLine: () => {} })
          for (let round = 0; round < 40; round++) {
            const child = yield* kernel.spawn({ ...sh("echo hello"), output })
            yield* child.exit
            output.flush()
          }
          assert.isAtMost(openFiles(), before + 4)
        }),
      )
      yield* until("all are closed", () => openFiles() <= before)
    }),
  )
})

describe("the log file", () => {
  it.live("is of bounded size, with the one before it, and ends with what came last", () =>
    Effect.gen(function* () {
      const log = { path: path.join(yield* temporary, "log"), maxBytes: 10_000 }
      yield* run("for i in $(seq 20000); do echo line $i; done", { log })
      const size = (file: string) => fs.statSync(file).size
      // A write more than its limit, which is no more than a pipe holds.
      assert.isAtMost(size(log.path), 10_000 + 65_536)
      assert.isAtMost(size(`${log.path}.1`), 10_000 + 65_536)
      assert.isTrue(fs.readFileSync(log.path, "utf8").endsWith("line 20000\n"))
    }),
  )

  it.live("that cannot be written loses lines, never the process", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const status = yield* run("echo one; exit 3", {
        log: { path: "/nowhere/log", maxBytes: 10 },
        onLine: (line) => lines.push(line),
      })
      assert.deepStrictEqual(status, { _tag: "Exited", code: 3 })
      assert.deepStrictEqual(lines, ["one"])
    }),
  )
})

describe("the FIFO", () => {
  const opened = Effect.gen(function* () {
    const directory = yield* temporary
    const fifo = path.join(directory, "fifo")
    yield* kernel.makeFifo(fifo)
    const output = yield* kernel.openOutput({
      fifo,
      log: { path: path.join(directory, "log"), maxBytes: 1_000_000 },
    })
    const write = (script: string) =>
      Effect.gen(function* () {
        const child = yield* kernel.spawn({ ...sh(script), output })
        yield* child.exit
        output.flush()
      })
    return { fifo, write }
  })

  it.live("a reader who comes late gets what was written last, and then what comes", () =>
    Effect.gen(function* () {
      const { fifo, write } = yield* opened
      yield* write("for i in $(seq 20000); do echo early $i; done")
      const late = reader(fifo)
      yield* until("the last of the log", () => late.read().endsWith("early 20000\n"))
      assert.match(late.read(), /^early \d+\n/u)
      assert.isAtMost(late.read().length, 32_768)
      yield* write("echo now")
      yield* until("what comes", () => late.read().endsWith("early 20000\nnow\n"))
      late.close()
    }),
  )

  it.live("a reader may go and come back", () =>
    Effect.gen(function* () {
      const { fifo, write } = yield* opened
      const first = reader(fifo)
      yield* write("echo one")
      yield* until("one", () => first.read().includes("one\n"))
      first.close()
      yield* write("echo two")
      const second = reader(fifo)
      yield* until("two", () => second.read().endsWith("two\n"))
      second.close()
    }),
  )

  it.live("a reader who does not read holds up nobody, and is told what was missed", () =>
    Effect.gen(function* () {
      const { fifo, write } = yield* opened
      yield* write("echo one")
      const slow = reader(fifo)
      yield* until("one", () => slow.read().includes("one\n"))
      // More than the pipe holds.
      yield* write("for i in $(seq 30000); do echo unread $i; done")
      yield* write("echo end")
      // A pipe has 16 pages. A write that does not fit into the rest of the last one begins another (fs/pipe.c),
      // so that depending on how the output comes in, half of them may be empty.
      yield* until("what fits", () => slow.read().length > 30_000)
      yield* until("the note", () => {
        return /\.\.\. \d+ bytes were not read in time\n/u.test(slow.read())
      }).pipe(
        Effect.raceFirst(Effect.forever(Effect.andThen(Effect.sleep("100 millis"), write("echo more")))),
      )
      assert.isTrue(
        slow
          .read()
          .split("\n")
          .every((line) => /^(one|unread \d+|end|more|\.\.\. .*|)$/u.test(line)),
      )
      slow.close()
    }),
  )

  it.live("what is no FIFO is not written to", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const fifo = path.join(directory, "file")
      fs.writeFileSync(fifo, "")
      const output = yield* kernel.openOutput({ fifo })
      const child = yield* kernel.spawn({ ...sh("sleep 1.5; echo x"), output })
      yield* child.exit
      output.flush()
      assert.strictEqual(fs.readFileSync(fifo, "utf8"), "")
    }),
  )
})

describe("a flood", () => {
  // KIOS_SOAK=1: the minute that is promised; otherwise a tenth of it.
  const seconds = process.env["KIOS_SOAK"] === "1" ? 60 : 6
  const flood = (...args: ReadonlyArray<string>) =>
    Effect.callback<Record<string, number> & { readonly ended: unknown; readonly wrote: string }>(
      (resume) => {
        const script = fileURLToPath(new URL("outputFlood.ts", import.meta.url))
        const child = execFile(
          process.execPath,
          ["--conditions=@kios/source", script, String(seconds), ...args],
          { timeout: (seconds + 90) * 1000, killSignal: "SIGKILL" },
          (error, stdout, stderr) =>
            resume(
              error === null
                ? Effect.sync(() => JSON.parse(stdout))
                : Effect.die(new Error(`${error.message}\n${stdout}\n${stderr}`)),
            ),
        )
        return Effect.sync(() => void child.kill("SIGKILL"))
      },
    )

  for (const [what, script] of [
    ["short lines", `timeout ${seconds} yes; echo the end`],
    ["bytes without an end", `timeout ${seconds} dd if=/dev/zero bs=1M status=none; echo; echo the end`],
  ] as const)
    it.live(
      `of ${what}, and nobody reads: the process is not held up, and neither init nor the disk are filled`,
      () =>
        Effect.gen(function* () {
          const told = yield* flood(script)
          assert.deepStrictEqual(told.ended, { _tag: "Exited", code: 0 }, JSON.stringify(told))
          // Its last words are the last that are known of it.
          assert.strictEqual(told.wrote, "the end")
          assert.isAbove(told["dropped"] ?? 0, 10_000_000, JSON.stringify(told))
          assert.isBelow(told["rssGrowthMiB"] ?? Infinity, 64, JSON.stringify(told))
          // Twice the limit of the file, and a write more for each.
          assert.isAtMost(told["diskKiB"] ?? Infinity, 2 * (256 + 64), JSON.stringify(told))
          assert.isBelow(told["cpuShare"] ?? Infinity, 0.5, JSON.stringify(told))
        }),
      (seconds + 120) * 1000,
    )
})
