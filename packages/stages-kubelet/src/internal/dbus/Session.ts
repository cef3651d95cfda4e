/**
 * What a client of our D-Bus may ask, as a state machine: bytes in, things to
 * do out. There is no bus behind it: the only names are the bus itself and
 * logind's, and init answers for both.
 *
 *   nothing ──SASL──▶ known ──Hello──▶ greeted: Get, AddMatch, Inhibit, signals
 *
 * Bytes that are not D-Bus, and messages before Hello, end it.
 *
 * https://www.freedesktop.org/software/systemd/man/org.freedesktop.login1.html
 */
import * as Message from "./Message.ts"
import * as Sasl from "./Sasl.ts"
import { Malformed, malformed } from "./Wire.ts"

const BUS = "org.freedesktop.DBus"
const LOGIND = "org.freedesktop.login1"
const PATH = "/org/freedesktop/login1"
const MANAGER = `${LOGIND}.Manager`
const PROPERTIES = `${BUS}.Properties`
// Whoever sends in logind's name has a unique name on a bus; clients do not ask whose it is.
const LOGIND_SENDER = ":1.0"

const MAX_MATCHES = 32
const MAX_RULE = 1024
const MAX_TEXT = 256

/** What Inhibit was called with. */
export interface InhibitRequest {
  readonly what: string
  readonly who: string
  readonly why: string
}

/** What is to be done for a client, in this order. */
export type Action =
  | { readonly _tag: "Send"; readonly bytes: Uint8Array }
  | {
      readonly _tag: "Inhibit"
      readonly request: InhibitRequest
      /** To be sent together with the pipe. */
      readonly granted: Uint8Array
      /** To be sent in its place. */
      readonly refused: (errorName: string, text: string) => Uint8Array
    }
  | { readonly _tag: "Close"; readonly reason: string }

/** One client. */
export interface Session {
  /** Whether it has said Hello. */
  readonly greeted: () => boolean
  /** Takes bytes in any portions; nothing after a Close. */
  readonly receive: (bytes: Uint8Array) => ReadonlyArray<Action>
  /** The signal PrepareForShutdown, if the client asked for it by AddMatch. */
  readonly prepareForShutdown: (active: boolean) => Uint8Array | undefined
}

/** What is said of this server. */
export interface SessionOptions {
  /** Of the peer, as the kernel says. */
  readonly uid: number
  readonly guid: string
  /** The client's name on the bus: `:1.7`. */
  readonly name: string
  /** The property InhibitDelayMaxUSec. */
  readonly delayMaxUSec: bigint
}

const SIGNAL: Readonly<Record<string, string>> = {
  type: "signal",
  sender: LOGIND,
  interface: MANAGER,
  member: "PrepareForShutdown",
  path: PATH,
}

/** Whether a match rule lets our signal through: each key that it has says what the signal is. */
const matches = (rule: string): boolean =>
  [...rule.matchAll(/(\w+)='([^']*)'/gu)].every(
    ([, key = "", value]) =>
      SIGNAL[key] === value || (key === "path_namespace" && PATH.startsWith(value ?? "")),
  )

/** Begins a session. */
export const make = ({ delayMaxUSec, guid, name, uid }: SessionOptions): Session => {
  const sasl = Sasl.make(uid, guid)
  const rules: Array<string> = []
  let known = false
  let greeted = false
  let over = false
  let serial = 0
  let pending: Uint8Array = new Uint8Array(0)

  const call = (message: Message.Message): Action | undefined => {
    const { destination, interface: wanted, member = "", path } = message.fields
    const sender = destination === LOGIND ? LOGIND_SENDER : BUS
    const fields = { destination: name, sender }
    const silent = (message.flags & Message.NO_REPLY_EXPECTED) !== 0
    const send = (bytes: Uint8Array): Action | undefined => (silent ? undefined : { _tag: "Send", bytes })
    const answer = (content?: Parameters<typeof Message.reply>[3]) =>
      send(Message.reply(++serial, message.serial, fields, content))
    const refused = (errorName: string, text: string) =>
      Message.error(++serial, message.serial, fields, errorName, text)
    const refuse = (errorName: string, text: string) => send(refused(`${BUS}.Error.${errorName}`, text))
    const is = (at: string, on: string, what: string, method: string) =>
      destination === at && (wanted ?? on) === on && path === what && member === method

    if (is(BUS, BUS, "/org/freedesktop/DBus", "Hello")) {
      if (greeted) return refuse("Failed", "Hello was said before")
      greeted = true
      return answer(Message.body.string(name))
    }
    if (!greeted) return malformed(`calls ${member} before Hello`)
    if (is(BUS, BUS, "/org/freedesktop/DBus", "AddMatch")) {
      const [rule = ""] = message.strings(1)
      if (rules.length >= MAX_MATCHES || rule.length > MAX_RULE)
        return refuse("LimitsExceeded", `at most ${MAX_MATCHES} rules of ${MAX_RULE} characters`)
      rules.push(rule)
      return answer()
    }
    if (is(LOGIND, PROPERTIES, PATH, "Get")) {
      const [on = "", property = ""] = message.strings(2)
      return on === MANAGER && property === "InhibitDelayMaxUSec"
        ? answer(Message.body.uint64Variant(delayMaxUSec))
        : refuse("UnknownProperty", `no property ${property.slice(0, MAX_TEXT)} here`)
    }
    if (is(LOGIND, MANAGER, PATH, "Inhibit")) {
      const [what = "", who = "", why = "", mode = ""] = message.strings(4)
      if (!what.split(":").includes("shutdown") || mode !== "delay")
        return refuse("NotSupported", "only shutdown can be inhibited here, and only in mode delay")
      if (!sasl.unixFds() || silent) return refuse("NotSupported", "the answer is a descriptor")
      return {
        _tag: "Inhibit",
        request: { what, who: who.slice(0, MAX_TEXT), why: why.slice(0, MAX_TEXT) },
        granted: Message.reply(++serial, message.serial, { ...fields, unixFds: 1 }, Message.body.descriptor),
        refused,
      }
    }
    return refuse("UnknownMethod", `no method ${member.slice(0, MAX_TEXT)} here`)
  }

  function* actions(bytes: Uint8Array): Generator<Action> {
    let rest = bytes
    if (!known) {
      const answered = sasl.receive(bytes)
      if (answered.text !== "") yield { _tag: "Send", bytes: Buffer.from(answered.text) }
      if (answered.rest === undefined) return
      known = true
      rest = answered.rest
    } else if (pending.length > 0) rest = Buffer.concat([pending, bytes])
    for (;;) {
      const length = Message.lengthOf(rest)
      if (length === undefined || rest.length < length) break
      const message = Message.decode(rest.subarray(0, length))
      rest = rest.subarray(length)
      // Answers and signals are nothing to us: we call nobody.
      const action = message.type === Message.METHOD_CALL ? call(message) : undefined
      if (action !== undefined) yield action
    }
    pending = Uint8Array.from(rest)
  }

  return {
    greeted: () => greeted,
    receive: (bytes) => {
      const done: Array<Action> = []
      if (over) return done
      try {
        for (const action of actions(bytes)) done.push(action)
      } catch (cause) {
        if (!(cause instanceof Malformed)) throw cause
        over = true
        done.push({ _tag: "Close", reason: cause.message })
      }
      return done
    },
    prepareForShutdown: (active) =>
      greeted && rules.some(matches)
        ? Message.signal(
            ++serial,
            { path: PATH, interface: MANAGER, member: "PrepareForShutdown", sender: LOGIND_SENDER },
            Message.body.boolean(active),
          )
        : undefined,
  }
}
