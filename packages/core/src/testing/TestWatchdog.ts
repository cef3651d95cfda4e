/**
 * A watchdog timer of an in-memory machine. It resets nothing: it remembers
 * how long it was left unfed, and whether that was too long.
 */
import { refuse, SpecialFile } from "./TestFiles.ts"

/** What a watchdog is. */
export interface WatchdogSpec {
  readonly identity?: string
  /** Seconds (default 65535); more is EINVAL. */
  readonly longestTimeout?: number
  /** It reset the machine before this boot. */
  readonly resetThisMachine?: boolean
}

/** How a watchdog stands. Times are seconds on the test's clock. */
export interface WatchdogState {
  readonly running: boolean
  readonly timeout: number
  readonly feeds: number
  /** It was left unfed for longer than its timeout: on a real machine, that was the end. */
  readonly fired: boolean
}

const DEFAULT_TIMEOUT = 60

export class WatchdogDevice extends SpecialFile {
  readonly identity: string
  readonly resetThisMachine: boolean
  readonly #longest: number
  #running = false
  #timeout = DEFAULT_TIMEOUT
  #feeds = 0
  #fedAt = 0
  #fired = false
  constructor(spec: WatchdogSpec) {
    super("character")
    this.identity = spec.identity ?? "Test Watchdog"
    this.resetThisMachine = spec.resetThisMachine ?? false
    this.#longest = spec.longestTimeout ?? 65_535
  }
  open(now: number): void {
    if (this.#running) return refuse("EBUSY", "open")
    this.#running = true
    this.#fedAt = now
  }
  setTimeout(seconds: number, now: number): number {
    if (seconds < 1 || seconds > this.#longest) return refuse("EINVAL")
    this.#look(now)
    this.#timeout = seconds
    this.#fedAt = now
    return seconds
  }
  feed(now: number): void {
    this.#look(now)
    this.#feeds++
    this.#fedAt = now
  }
  disarm(now: number): void {
    this.#look(now)
    this.#running = false
  }
  state(now: number): WatchdogState {
    this.#look(now)
    return { running: this.#running, timeout: this.#timeout, feeds: this.#feeds, fired: this.#fired }
  }
  #look(now: number): void {
    if (this.#running && now - this.#fedAt > this.#timeout) this.#fired = true
  }
}
