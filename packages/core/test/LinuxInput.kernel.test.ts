// How the live kernel's input devices are heard, on a FIFO: it sends SIGIO as evdev does.
import { assert, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import type { InputEvent } from "@kios/core/Kernel"
import { hear } from "@kios/core/linux/input"
import * as Libc from "@kios/core/linux/libc"

const bytesOf = ({ code, type, value }: InputEvent): Buffer => {
  const bytes = Buffer.alloc(24)
  bytes.writeUInt16LE(type, 16)
  bytes.writeUInt16LE(code, 18)
  bytes.writeInt32LE(value, 20)
  return bytes
}

it.live("events are heard as they come, without waiting in read(2), until it ends", () =>
  Effect.gen(function* () {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-input-"))
    const fifo = path.join(directory, "fifo")
    execFileSync("mkfifo", [fifo])
    const fd = fs.openSync(fifo, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
    const writer = fs.openSync(fifo, fs.constants.O_WRONLY)
    const heard: Array<InputEvent> = []
    const press = { type: 1, code: 116, value: 1 }
    const release = { ...press, value: 0 }
    // What was there before it was asked for counts as well.
    fs.writeSync(writer, bytesOf(press))
    const end = hear(Libc.make({}), fd, (event) => void heard.push(event))
    assert.deepStrictEqual(heard, [press])
    const until = (count: number) =>
      Effect.suspend(() =>
        heard.length >= count ? Effect.void : Effect.fail(new Error(`heard ${heard.length}`)),
      ).pipe(Effect.retry(Schedule.spaced("5 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))))
    fs.writeSync(writer, Buffer.concat([bytesOf(release), bytesOf(press)]))
    yield* until(3)
    assert.deepStrictEqual(heard, [press, release, press])
    // fdinfo has the flags in octal: O_ASYNC.
    const asks = () =>
      (Number.parseInt(
        /^flags:\s*(\d+)$/mu.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "",
        8,
      ) &
        0o20000) !==
      0
    assert.isTrue(asks())
    end()
    assert.isFalse(asks())
    fs.closeSync(writer)
    fs.closeSync(fd)
    fs.rmSync(directory, { recursive: true })
  }),
)
