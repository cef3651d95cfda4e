// The client's side of D-Bus, as godbus and sd-bus write it, for tests of the server's.
import { decode, lengthOf, type Message } from "@kios/stages-kubelet/internal/dbus/Message"

const FIELDS = {
  path: [1, "o"],
  interface: [2, "s"],
  member: [3, "s"],
  destination: [6, "s"],
  signature: [8, "g"],
} as const

/** A writer of its own, so that a mistake of the server's does not cancel itself out; either byte order. */
const writer = (littleEndian: boolean) => {
  const bytes: Array<number> = []
  const align = (to: number) => {
    while (bytes.length % to !== 0) bytes.push(0)
  }
  const uint32 = (value: number) => {
    align(4)
    const view = new DataView(new ArrayBuffer(4))
    view.setUint32(0, value, littleEndian)
    bytes.push(...new Uint8Array(view.buffer))
  }
  const text = (value: string, length: (n: number) => void) => {
    const utf8 = new TextEncoder().encode(value)
    length(utf8.length)
    bytes.push(...utf8, 0)
  }
  return {
    bytes,
    align,
    uint32,
    string: (value: string) => text(value, uint32),
    signature: (value: string) => text(value, (n) => bytes.push(n)),
  }
}

export interface Call {
  readonly path: string
  readonly interface: string
  readonly member: string
  readonly destination: string
  readonly args?: ReadonlyArray<string>
  readonly serial?: number
  readonly flags?: number
  readonly type?: number
  readonly littleEndian?: boolean
  /** Header fields of other kinds, as bytes: a struct each, without its padding. */
  readonly more?: ReadonlyArray<ReadonlyArray<number>>
}

/** A method call with strings as arguments. */
export const call = ({
  args = [],
  flags = 0,
  littleEndian = true,
  more = [],
  serial = 1,
  type = 1,
  ...rest
}: Call): Buffer => {
  const body = writer(littleEndian)
  for (const arg of args) body.string(arg)
  const fields = writer(littleEndian)
  const all = { ...rest, ...(args.length === 0 ? {} : { signature: "s".repeat(args.length) }) }
  for (const [name, [code, kind]] of Object.entries(FIELDS)) {
    const value = all[name as keyof typeof all]
    if (value === undefined) continue
    fields.align(8)
    fields.bytes.push(code)
    fields.signature(kind)
    if (kind === "g") fields.signature(value)
    else fields.string(value)
  }
  for (const field of more) {
    fields.align(8)
    fields.bytes.push(...field)
  }
  const message = writer(littleEndian)
  message.bytes.push(littleEndian ? 0x6c : 0x42, type, flags, 1)
  message.uint32(body.bytes.length)
  message.uint32(serial)
  message.uint32(fields.bytes.length)
  message.bytes.push(...fields.bytes)
  message.align(8)
  message.bytes.push(...body.bytes)
  return Buffer.from(message.bytes)
}

const BUS = {
  destination: "org.freedesktop.DBus",
  interface: "org.freedesktop.DBus",
  path: "/org/freedesktop/DBus",
}
const LOGIND = { destination: "org.freedesktop.login1", path: "/org/freedesktop/login1" }
export const MANAGER = "org.freedesktop.login1.Manager"

/** The rule that the kubelet asks for. */
export const rule = `type='signal',interface='${MANAGER}',member='PrepareForShutdown',path='/org/freedesktop/login1'`

export const calls = {
  hello: (serial = 1) => call({ ...BUS, member: "Hello", serial }),
  addMatch: (text = rule, serial = 2) => call({ ...BUS, member: "AddMatch", args: [text], serial }),
  get: (property = "InhibitDelayMaxUSec", serial = 3) =>
    call({
      ...LOGIND,
      interface: "org.freedesktop.DBus.Properties",
      member: "Get",
      args: [MANAGER, property],
      serial,
    }),
  inhibit: (what = "shutdown", mode = "delay", serial = 4, flags = 0) =>
    call({
      ...LOGIND,
      interface: MANAGER,
      member: "Inhibit",
      args: [what, "kubelet", "Kubelet needs time to handle node shutdown", mode],
      serial,
      flags,
    }),
  unknown: (serial = 5) => call({ ...LOGIND, interface: MANAGER, member: "Reboot", serial }),
}

/** What godbus sends before the first message. */
export const sasl = "\0AUTH\r\nAUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
/** What it gets. */
export const saslAnswer = (guid: string) => `REJECTED EXTERNAL\r\nDATA\r\nOK ${guid}\r\nAGREE_UNIX_FD\r\n`

/** The messages in what the server has sent. */
export const messages = (bytes: Uint8Array): ReadonlyArray<Message> => {
  const length = bytes.length === 0 ? undefined : lengthOf(bytes)
  return length === undefined ? [] : [decode(bytes.subarray(0, length)), ...messages(bytes.subarray(length))]
}
