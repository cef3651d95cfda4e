import { StringDecoder } from "node:string_decoder"

/** Characters after which a line without an end is given out anyway. */
const LONGEST = 16 * 1024

/**
 * Turns chunks of a program's output into lines. A carriage return ends a line
 * as well (progress meters), empty lines are dropped, and a line that never
 * ends is given out in pieces: memory stays bounded.
 */
export class LineSplitter {
  readonly #decoder = new StringDecoder("utf8")
  readonly #emit: (line: string) => void
  #rest = ""

  constructor(emit: (line: string) => void) {
    this.#emit = emit
  }

  /** Take a chunk; complete lines are given out at once. */
  push(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk))
  }

  /** The stream is over: the last line may have no end. */
  end(): void {
    this.#take(this.#decoder.end())
    if (this.#rest !== "") this.#emit(this.#rest)
    this.#rest = ""
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split(/\r\n|\n|\r/u)
    this.#rest = lines.pop()!
    for (const line of lines) if (line !== "") this.#emit(line)
    if (this.#rest.length > LONGEST) {
      this.#emit(this.#rest)
      this.#rest = ""
    }
  }
}
