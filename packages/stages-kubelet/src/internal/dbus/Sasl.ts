/**
 * How a D-Bus client says who it is, before the first message: lines of SASL,
 * of which the server speaks EXTERNAL alone, whose proof are the credentials
 * that the kernel gives of the peer.
 *
 * https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol
 */
import { malformed } from "./Wire.ts"

const MAX_LINE = 256
// A client needs four; godbus sends six.
const MAX_LINES = 16

/** What the server answers to bytes. */
export interface Answer {
  /** Lines for the client, each with its end. */
  readonly text: string
  /** What came after BEGIN, and so is of the first message; undefined while it is not there. */
  readonly rest: Uint8Array | undefined
}

/** The server's side of one client. */
export interface Sasl {
  /** Whether descriptors may be sent. */
  readonly unixFds: () => boolean
  /** Takes bytes in any portions. Throws Malformed. */
  readonly receive: (bytes: Uint8Array) => Answer
}

type State = "nul" | "auth" | "data" | "begin"

const REJECTED = "REJECTED EXTERNAL\r\n"
const MISPLACED = 'ERROR "not understood here"\r\n'

/**
 * @param uid of the peer, as the kernel says
 * @param guid of the server: 32 hexadecimal digits
 */
export const make = (uid: number, guid: string): Sasl => {
  let state: State = "nul"
  let unixFds = false
  let lines = 0
  let pending: Uint8Array = new Uint8Array(0)

  const identity = (hex: string | undefined): string => {
    // An empty one means who the kernel says.
    const claimed = hex === undefined || hex === "" ? String(uid) : Buffer.from(hex, "hex").toString()
    state = claimed === String(uid) ? "begin" : "auth"
    return state === "begin" ? `OK ${guid}\r\n` : REJECTED
  }
  const reject = (): string => {
    state = "auth"
    return REJECTED
  }

  /** Undefined: BEGIN. */
  const answer = (line: string): string | undefined => {
    const [command = "", ...words] = line.split(" ")
    if (command === "BEGIN")
      return state === "begin" ? undefined : malformed("BEGIN of a client that is not known")
    if (command === "CANCEL" || command === "ERROR") return reject()
    if (state === "auth" && command === "AUTH") {
      if (words[0] !== "EXTERNAL") return REJECTED
      if (words.length > 1) return identity(words[1])
      state = "data"
      return "DATA\r\n"
    }
    if (state === "data" && command === "DATA") return identity(words[0])
    if (state === "begin" && command === "NEGOTIATE_UNIX_FD") {
      unixFds = true
      return "AGREE_UNIX_FD\r\n"
    }
    return MISPLACED
  }

  return {
    unixFds: () => unixFds,
    receive: (bytes) => {
      let rest: Uint8Array = pending.length === 0 ? bytes : Buffer.concat([pending, bytes])
      let text = ""
      if (state === "nul" && rest.length > 0) {
        if (rest[0] !== 0) return malformed("does not begin with a NUL")
        rest = rest.subarray(1)
        state = "auth"
      }
      for (;;) {
        const end = rest.indexOf(0x0a)
        if ((end === -1 ? rest.length : end) > MAX_LINE) return malformed("a line without an end")
        if (end === -1) {
          pending = Uint8Array.from(rest)
          return { text, rest: undefined }
        }
        if (rest[end - 1] !== 0x0d) return malformed("a line that does not end in CR LF")
        if (++lines > MAX_LINES) return malformed("too many lines before BEGIN")
        const line = Buffer.from(rest.subarray(0, end - 1)).toString("latin1")
        rest = rest.subarray(end + 1)
        const answered = answer(line)
        if (answered === undefined) return { text, rest }
        text += answered
      }
    },
  }
}
