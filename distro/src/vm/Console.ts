/**
 * The serial console of a virtual machine: bytes in, lines out.
 *
 * A serial line carries whatever the firmware, the kernel and user space write:
 * cursor movements, invalid UTF-8, lines that never end. {@link LineDecoder}
 * makes lines of it within bounded memory; {@link Console} keeps the last ones,
 * copies them into a file and hands them to any number of readers.
 */
import { type Cause, Effect, Queue, type Scope, Stream } from "effect"
import * as fs from "node:fs"
import { VmPrepareFailed } from "./VmError.ts"

/** One line of the console. */
export interface Line {
  /** Position in the console's history, from 0. */
  readonly index: number
  /** The line as printed, without control characters. */
  readonly text: string
  /** The line without the kernel's `[    1.234567] ` in front. */
  readonly message: string
  /** When its first byte arrived: nanoseconds of the host's monotonic clock. */
  readonly at: bigint
  /** The kernel's own timestamp in seconds since kernel start, when the line has one. */
  readonly kernelSeconds?: number
  /** The line was longer than the limit and its rest is lost. */
  readonly truncated: boolean
  /** The console ended in the middle of this line. */
  readonly partial: boolean
}

/** `[    3.281234] text`, `[    3.281234][    T1] text` (CONFIG_PRINTK_CALLER), `<6>[ 3.28...] text`. */
const kernelStamp = /^(?:<\d{1,3}>)?\[ *(\d{1,9}\.\d{1,9})\](?:\[ *[TC]\d+\])? ?/

/** Splits a line into the kernel's timestamp (seconds), when there, and the rest. */
export const parseKernelTimestamp = (
  text: string,
): { readonly kernelSeconds?: number; readonly message: string } => {
  const match = kernelStamp.exec(text)
  return match === null
    ? { message: text }
    : { kernelSeconds: Number(match[1]), message: text.slice(match[0].length) }
}

const ESC = 0x1b
type State = "text" | "escape" | "csi" | "string" | "string-escape" | "charset"

/**
 * Turns chunks of bytes into {@link Line}s. Pure apart from its own memory,
 * which is bounded by `maxLineLength` (characters, default 4096).
 *
 * - CR, LF and a cursor that is moved all end a line; empty lines are dropped.
 * - ANSI escapes (CSI, OSC, charset) and control characters are removed.
 * - Bytes that are no UTF-8 become U+FFFD.
 *
 * @example
 * new LineDecoder().push(new TextEncoder().encode("[    1.5] hi\r\n"), 0n)
 */
export class LineDecoder {
  readonly #maxLineLength: number
  readonly #utf8 = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true })
  #state: State = "text"
  #csi = ""
  #pending = ""
  #pendingAt = 0n
  #truncated = false
  #index = 0

  constructor(options: { readonly maxLineLength?: number } = {}) {
    this.#maxLineLength = options.maxLineLength ?? 4096
  }

  /** What has arrived of the line that is not complete yet. */
  get pending(): string {
    return this.#pending
  }

  /** Takes bytes that arrived at `at` (monotonic ns); gives the lines they complete. */
  push(bytes: Uint8Array, at: bigint): Array<Line> {
    const lines: Array<Line> = []
    this.#text(this.#utf8.decode(bytes, { stream: true }), at, lines)
    return lines
  }

  /** The console is over: gives the unfinished line, if any. */
  end(at: bigint): Array<Line> {
    const lines: Array<Line> = []
    this.#text(this.#utf8.decode(), at, lines)
    this.#flush(lines, true)
    return lines
  }

  #text(text: string, at: bigint, lines: Array<Line>): void {
    for (const char of text) {
      const code = char.codePointAt(0) ?? 0
      switch (this.#state) {
        case "text":
          if (code === 0x0a || code === 0x0d) this.#flush(lines, false)
          else if (code === ESC) this.#state = "escape"
          else if (code === 0x9b) this.#startCsi()
          else if (code === 0x09) this.#append(" ", at)
          else if (code >= 0x20 && (code < 0x7f || code > 0x9f)) this.#append(char, at)
          break
        case "escape":
          this.#state = "text"
          if (char === "[") this.#startCsi()
          else if (char === "]" || char === "P" || char === "X" || char === "^" || char === "_") {
            this.#state = "string"
            this.#csi = ""
          } else if (
            char === "(" ||
            char === ")" ||
            char === "*" ||
            char === "+" ||
            char === "#" ||
            char === "%"
          )
            this.#state = "charset"
          else if (code === ESC) this.#state = "escape"
          else if (char === "c" || char === "D" || char === "E" || code === 0x0a || code === 0x0d)
            this.#flush(lines, false)
          break
        case "charset":
          this.#state = "text"
          break
        case "csi":
          if (code >= 0x40 && code <= 0x7e) {
            this.#state = "text"
            // The cursor goes elsewhere or the screen is cleared: what follows is another line.
            if ("HfJABEFd".includes(char)) this.#flush(lines, false)
          } else if (
            code === 0x0a ||
            code === 0x0d ||
            code === 0x18 ||
            code === 0x1a ||
            this.#csi.length > 32
          ) {
            this.#state = "text" // never a sequence: a lone ESC [ in a log
            if (code === 0x0a || code === 0x0d) this.#flush(lines, false)
          } else if (code === ESC) this.#state = "escape"
          else this.#csi += char
          break
        case "string":
          if (code === ESC) this.#state = "string-escape"
          else if (code === 0x07 || code === 0x9c || code === 0x18 || code === 0x1a) this.#state = "text"
          else if (code === 0x0a || code === 0x0d || this.#csi.length > 256) {
            this.#state = "text"
            if (code === 0x0a || code === 0x0d) this.#flush(lines, false)
          } else this.#csi += char
          break
        case "string-escape":
          this.#state = char === "\\" ? "text" : code === ESC ? "string-escape" : "string"
          break
      }
    }
  }

  #startCsi(): void {
    this.#state = "csi"
    this.#csi = ""
  }

  #append(char: string, at: bigint): void {
    if (this.#pending === "" && !this.#truncated) this.#pendingAt = at
    if (this.#pending.length + char.length > this.#maxLineLength) this.#truncated = true
    else this.#pending += char
  }

  #flush(lines: Array<Line>, partial: boolean): void {
    const text = this.#pending.trimEnd()
    const truncated = this.#truncated
    this.#pending = ""
    this.#truncated = false
    if (text === "") return
    lines.push({
      index: this.#index++,
      text,
      ...parseKernelTimestamp(text),
      at: this.#pendingAt,
      truncated,
      partial,
    })
  }
}

/** The console of one machine. */
export interface Console {
  /** Takes bytes as they arrive. */
  readonly write: (bytes: Uint8Array) => void
  /** Ends the console: the unfinished line is emitted and `lines` end. */
  readonly end: () => void
  /** The lines kept, then every new one until the console ends. Each run is a reader of its own. */
  readonly lines: Stream.Stream<Line>
  /** The last `count` lines (all that are kept without it). */
  readonly tail: (count?: number) => ReadonlyArray<Line>
  /** The line that is not complete yet. */
  readonly pending: () => string
  /** When the last byte arrived: monotonic ns, of the console's making when there was none. */
  readonly lastByteAt: () => bigint
}

/** How a {@link Console} is made. */
export interface ConsoleOptions {
  /** Lines kept for late readers and for reports. Default 4000. */
  readonly keep?: number
  /** Characters of a line that are kept. Default 4096. */
  readonly maxLineLength?: number
  /** A file that receives the bytes as they came. Its directory must exist. */
  readonly tee?: string
  /** The monotonic clock in ns; tests replace it. */
  readonly now?: () => bigint
}

/** Lines that a reader may lag behind before it loses the oldest. */
const readerCapacity = 65_536

/**
 * A console, ended and closed with the scope. Fails with `VmPrepareFailed` when
 * the `tee` file cannot be opened; a full disk later on only ends the copy.
 *
 * @example
 * const console = yield* Console.make({ keep: 1000, tee: "console.log" })
 * yield* console.lines.pipe(Stream.runForEach((line) => Effect.logInfo(line.text)))
 */
export const make = (options: ConsoleOptions = {}): Effect.Effect<Console, VmPrepareFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => open(options),
      catch: (cause) => new VmPrepareFailed({ step: `opening the console log ${options.tee}`, cause }),
    }),
    (console) => Effect.sync(() => console.end()),
  )

const open = (options: ConsoleOptions): Console => {
  const now = options.now ?? process.hrtime.bigint
  const keep = Math.max(1, options.keep ?? 4000)
  const decoder = new LineDecoder(
    options.maxLineLength === undefined ? {} : { maxLineLength: options.maxLineLength },
  )
  const readers = new Set<Queue.Queue<Line, Cause.Done>>()
  let kept: Array<Line> = []
  let tee = options.tee === undefined ? undefined : fs.openSync(options.tee, "w", 0o644)
  let lastByteAt = now()
  let ended = false

  const closeTee = () => {
    if (tee !== undefined) fs.closeSync(tee)
    tee = undefined
  }
  const emit = (lines: ReadonlyArray<Line>) => {
    if (lines.length === 0) return
    for (const line of lines) kept.push(line)
    if (kept.length > keep * 2) kept = kept.slice(-keep)
    for (const reader of readers) for (const line of lines) Queue.offerUnsafe(reader, line)
  }
  const tail = (count: number = keep) => (count <= 0 ? [] : kept.slice(-Math.min(count, keep)))

  return {
    write: (bytes) => {
      if (ended || bytes.length === 0) return
      lastByteAt = now()
      if (tee !== undefined) {
        try {
          fs.writeSync(tee, bytes)
        } catch {
          closeTee() // a full disk must not end the boot
        }
      }
      emit(decoder.push(bytes, lastByteAt))
    },
    end: () => {
      if (ended) return
      ended = true
      emit(decoder.end(now()))
      closeTee()
      for (const reader of readers) Queue.endUnsafe(reader)
      readers.clear()
    },
    lines: Stream.unwrap(
      Effect.gen(function* () {
        const queue = yield* Queue.sliding<Line, Cause.Done>(readerCapacity)
        yield* Effect.addFinalizer(() =>
          Effect.suspend(() => {
            readers.delete(queue)
            return Queue.shutdown(queue)
          }),
        )
        for (const line of tail()) Queue.offerUnsafe(queue, line)
        if (ended) Queue.endUnsafe(queue)
        else readers.add(queue)
        return Stream.fromQueue(queue)
      }),
    ),
    tail,
    pending: () => decoder.pending,
    lastByteAt: () => lastByteAt,
  }
}
