/**
 * What processes write, on its way from their pipe to those who read it.
 *
 * One pipe(2) takes stdout and stderr of all runs of a process. Init keeps both
 * of its ends: what a process started and left behind (containerd's shims) may
 * go on writing when the process is gone, a run costs no descriptor, and what
 * was written before a death is there to be read after it.
 *
 * Nobody who writes waits for anybody who reads:
 *
 *   pipe ── as much as MAX_READ, which is more than anybody logs ──▶ init
 *   init ── as much as the rate allows; the rest is dropped and counted ──▶
 *           lines ──▶ whoever asked for lines
 *             ├─────▶ a file of bounded size, and the one before it
 *             └─────▶ a FIFO, as long as somebody reads it
 *
 * pipe(7), fifo(7).
 */
import * as fs from "node:fs"
import type { OutputSpec, ProcessOutput } from "../Kernel.ts"

/** An open output; `descriptor` is what a process is given as stdout and stderr. */
export interface LiveOutput extends ProcessOutput {
  readonly descriptor: number
  readonly close: () => void
}

// A line that never ends must not fill PID 1's memory.
const MAX_LINE = 4096
const BUFFER = 64 * 1024
// What is kept: enough for a panic with all its goroutines, and then for more than any daemon logs all the time.
const BURST = 2 * 1024 * 1024
const KEPT_PER_SECOND = 256 * 1024
// What is read. Throwing away costs init time too, so that a process which writes
// without end is made to wait at times, but goes on: 32 MiB/s.
const WINDOW_MS = 20
const MAX_READ = (32 * 1024 * 1024 * WINDOW_MS) / 1000
// How much of what was dropped is looked at after all when the process dies.
const TAIL = 8 * 1024
// How often a flood that goes on is told of, and somebody is looked for at the FIFO's other end.
const TELL_EVERY_MS = 10_000
const LOOK_EVERY_MS = 1000
// What a reader who comes late gets to begin with: half of what a pipe holds.
const REPLAY = 32 * 1024

/** Appends to a file of bounded size. A log that cannot be written loses lines, never the process. */
const logFile = (path: string, maxBytes: number) => {
  let fd: number | undefined
  let size = 0
  const close = () => {
    if (fd === undefined) return
    const open = fd
    fd = undefined
    try {
      fs.closeSync(open)
    } catch {
      // Nothing more can be done with it.
    }
  }
  return {
    close,
    write: (text: string) => {
      try {
        if (fd !== undefined && size > maxBytes) {
          close()
          fs.renameSync(path, `${path}.1`)
        }
        if (fd === undefined) {
          fd = fs.openSync(path, "a", 0o640)
          size = fs.fstatSync(fd).size
        }
        size += fs.writeSync(fd, text)
      } catch {
        close()
      }
    },
    /** Its last whole lines. */
    tail: (bytes: number): string => {
      let reading: number | undefined
      try {
        reading = fs.openSync(path, "r")
        const at = Math.max(0, fs.fstatSync(reading).size - bytes)
        const buffer = Buffer.alloc(bytes)
        const text = buffer.toString("utf8", 0, fs.readSync(reading, buffer, 0, bytes, at))
        return at === 0 ? text : text.slice(text.indexOf("\n") + 1)
      } catch {
        return ""
      } finally {
        if (reading !== undefined) fs.closeSync(reading)
      }
    },
  }
}

/** Writes to a FIFO while it has a reader, whole lines, and never waits. */
const fifoWriter = (path: string, replay: () => string) => {
  const { O_NONBLOCK, O_WRONLY } = fs.constants
  let fd: number | undefined
  // What did not fit of a line that is there in part.
  let rest: Buffer = Buffer.alloc(0)
  let dropped = 0
  const close = () => {
    if (fd !== undefined) fs.closeSync(fd)
    fd = undefined
    rest = Buffer.alloc(0)
    dropped = 0
  }
  /** Whether all of it is in the pipe now. */
  const put = (bytes: Buffer): boolean => {
    if (fd === undefined) return false
    try {
      rest = bytes.subarray(fs.writeSync(fd, bytes))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EAGAIN") {
        // EPIPE: the reader has gone.
        close()
        return false
      }
      rest = bytes
    }
    return rest.length === 0
  }
  const write = (text: string) => {
    if (fd === undefined) return
    if (rest.length > 0 && !put(rest)) {
      dropped += Buffer.byteLength(text)
      return
    }
    const note = dropped === 0 ? "" : `... ${dropped} bytes were not read in time\n`
    dropped = 0
    put(Buffer.from(note + text))
  }
  const look = () => {
    if (fd !== undefined) {
      if (rest.length > 0) put(rest)
      return
    }
    try {
      // ENXIO: nobody reads.
      fd = fs.openSync(path, O_WRONLY | O_NONBLOCK)
      // Anything else would be filled without end.
      if (fs.fstatSync(fd).isFIFO()) write(replay())
      else close()
    } catch {
      // Looked for again, as long as init lives.
    }
  }
  const timer = setInterval(look, LOOK_EVERY_MS)
  timer.unref()
  return {
    write,
    close: () => {
      clearInterval(timer)
      close()
    },
  }
}

/** Reads what is there; false when that is nothing. */
const readNow = (fd: number, buffer: Buffer): number => {
  try {
    return fs.readSync(fd, buffer, 0, buffer.length, null)
  } catch {
    // EAGAIN
    return 0
  }
}

/** Opens an output on a pipe's two ends, which it closes. */
export const make = (spec: OutputSpec, reading: number, writing: number): LiveOutput => {
  const { Socket } = process.getBuiltinModule("node:net")
  const { StringDecoder } = process.getBuiltinModule("node:string_decoder")
  const decoder = new StringDecoder("utf8")
  const file = spec.log === undefined ? undefined : logFile(spec.log.path, spec.log.maxBytes)
  const fifo = spec.fifo === undefined ? undefined : fifoWriter(spec.fifo, () => file?.tail(REPLAY) ?? "")
  let rest = ""
  let tokens = BURST
  let refilledAt = performance.now()
  // A flood is over when a second's worth may be kept again: less would be a flood of notes about it.
  let flood = false
  let dropped = 0
  let untold = 0
  let telling: NodeJS.Timeout | undefined
  const tail = Buffer.alloc(TAIL)
  let tailLength = 0

  const tellLines = (text: string, last: boolean) => {
    const parts = (rest + text).split("\n")
    rest = parts.pop() ?? ""
    if (rest.length > MAX_LINE || (last && rest !== "")) {
      parts.push(rest)
      rest = ""
    }
    if (spec.onLine !== undefined) for (const part of parts) spec.onLine(part.slice(0, MAX_LINE))
    if (fifo !== undefined && parts.length > 0)
      fifo.write(`${parts.map((part) => part.slice(0, MAX_LINE)).join("\n")}\n`)
  }
  const keep = (text: string, last = false) => {
    if (text !== "") file?.write(text)
    tellLines(text, last)
  }

  const tellDropped = () => {
    clearTimeout(telling)
    telling = undefined
    if (untold === 0) return
    const bytes = untold
    untold = 0
    spec.onDropped?.(bytes)
    telling = setTimeout(tellDropped, TELL_EVERY_MS)
    telling.unref()
  }
  /** That there was a flood, and how it ended. */
  const endFlood = () => {
    if (!flood) return
    flood = false
    // The character and the line that it began in are lost.
    decoder.end()
    rest = ""
    keep(`\n... ${dropped} bytes of output were dropped: it came faster than it is kept\n`)
    untold += dropped
    dropped = 0
    if (telling === undefined) tellDropped()
    const text = tail.toString("utf8", 0, tailLength)
    tailLength = 0
    keep(text.slice(text.indexOf("\n") + 1))
  }

  const take = (bytes: Buffer) => {
    const now = performance.now()
    tokens = Math.min(BURST, tokens + ((now - refilledAt) / 1000) * KEPT_PER_SECOND)
    refilledAt = now
    if (tokens >= (flood ? KEPT_PER_SECOND : bytes.length)) {
      tokens -= bytes.length
      endFlood()
      keep(decoder.write(bytes))
      return
    }
    flood = true
    dropped += bytes.length
    const last = bytes.subarray(-TAIL)
    const older = Math.min(tailLength, TAIL - last.length)
    tail.copyWithin(0, tailLength - older, tailLength)
    last.copy(tail, older)
    tailLength = older + last.length
  }

  let windowBegan = 0
  let read = 0
  const buffer = Buffer.alloc(BUFFER)
  const socket = new Socket({
    fd: reading,
    readable: true,
    writable: false,
    onread: {
      buffer,
      callback: (count, bytes) => {
        take((bytes as Buffer).subarray(0, count))
        const now = performance.now()
        if (now - windowBegan >= WINDOW_MS) {
          windowBegan = now
          read = 0
        }
        read += count
        if (read < MAX_READ) return true
        setTimeout(() => socket.resume(), Math.max(1, windowBegan + WINDOW_MS - now))
        return false
      },
    },
  })
  socket.on("error", () => {})
  // Nothing waits for output: init has its own reasons to stay.
  socket.unref()
  socket.resume()
  const spare = Buffer.alloc(BUFFER)
  return {
    descriptor: writing,
    flush: () => {
      // What fits into a pipe; more is being written by somebody else.
      for (let times = 0; times < 16; times++) {
        const count = readNow(reading, spare)
        if (count === 0) break
        take(spare.subarray(0, count))
      }
      endFlood()
      tellDropped()
      keep(decoder.end(), true)
    },
    close: () => {
      clearTimeout(telling)
      socket.destroy()
      fs.closeSync(writing)
      file?.close()
      fifo?.close()
    },
  }
}
