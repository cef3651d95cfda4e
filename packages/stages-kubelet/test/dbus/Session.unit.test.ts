import { assert, describe, it } from "@effect/vitest"
import * as Session from "@kios/stages-kubelet/internal/dbus/Session"
import { call, calls, MANAGER, messages, sasl, saslAnswer } from "./client.ts"

const guid = "0123456789abcdef0123456789abcdef"
const begin = (uid = 0) => Session.make({ uid, guid, name: ":1.7", delayMaxUSec: 1_200_000_000n })

const sent = (actions: ReadonlyArray<Session.Action>): Buffer =>
  Buffer.concat(actions.flatMap((action) => (action._tag === "Send" ? [action.bytes] : [])))
const closed = (actions: ReadonlyArray<Session.Action>): string | undefined => {
  const last = actions.at(-1)
  return last?._tag === "Close" ? last.reason : undefined
}
/** A client that may ask for anything. */
const greeted = () => {
  const session = begin()
  session.receive(Buffer.concat([Buffer.from(sasl), calls.hello()]))
  assert.isTrue(session.greeted())
  return session
}
const answerTo = (session: Session.Session, bytes: Uint8Array) => messages(sent(session.receive(bytes)))[0]

describe("a session", () => {
  it("does with the kubelet's client what a system bus with logind does", () => {
    const session = begin()
    assert.strictEqual(sent(session.receive(Buffer.from(sasl))).toString(), saslAnswer(guid))
    const [hello] = messages(sent(session.receive(calls.hello(1))))
    assert.deepInclude(hello, { type: 2 })
    assert.deepInclude(hello?.fields, { replySerial: 1, sender: "org.freedesktop.DBus", destination: ":1.7" })
    assert.deepStrictEqual(hello?.strings(1), [":1.7"])
    const delay = session.receive(calls.get("InhibitDelayMaxUSec", 2))
    const bytes = sent(delay)
    assert.deepInclude(messages(bytes)[0]?.fields, { replySerial: 2, signature: "v" })
    // A variant: its signature `t` with length and end, padding to 8, the number.
    assert.strictEqual(bytes.subarray(-16).toString("hex"), "0174000000000000008c864700000000")
    const [inhibit] = session.receive(calls.inhibit("shutdown", "delay", 3))
    if (inhibit?._tag !== "Inhibit") return assert.fail(inhibit?._tag)
    assert.deepStrictEqual(inhibit.request, {
      what: "shutdown",
      who: "kubelet",
      why: "Kubelet needs time to handle node shutdown",
    })
    const [granted] = messages(inhibit.granted)
    assert.deepInclude(granted?.fields, { replySerial: 3, signature: "h", unixFds: 1 })
    assert.strictEqual(Buffer.from(inhibit.granted).readUInt32LE(inhibit.granted.length - 4), 0)
    assert.isUndefined(session.prepareForShutdown(true))
    assert.deepInclude(answerTo(session, calls.addMatch())?.fields, { replySerial: 2 })
    const signal = session.prepareForShutdown(true)
    assert.isDefined(signal)
    const [prepare] = messages(signal)
    assert.deepInclude(prepare, { type: 4 })
    assert.deepInclude(prepare?.fields, {
      path: "/org/freedesktop/login1",
      interface: MANAGER,
      member: "PrepareForShutdown",
      signature: "b",
    })
    assert.strictEqual(Buffer.from(signal).readUInt32LE(signal.length - 4), 1)
  })

  it("takes the same bytes in any portions", () => {
    const bytes = Buffer.concat([
      Buffer.from(sasl),
      calls.hello(1),
      calls.addMatch(),
      calls.get(),
      calls.unknown(),
    ])
    const whole = sent(begin().receive(bytes))
    for (const size of [1, 2, 3, 7, 16, 61, 256]) {
      const session = begin()
      const portions: Array<Buffer> = []
      for (let at = 0; at < bytes.length; at += size)
        portions.push(sent(session.receive(bytes.subarray(at, at + size))))
      assert.deepStrictEqual(Buffer.concat(portions), whole, `${size} bytes at a time`)
    }
  })

  it("reads the other byte order", () => {
    const session = greeted()
    const big = call({
      destination: "org.freedesktop.login1",
      path: "/org/freedesktop/login1",
      interface: "org.freedesktop.DBus.Properties",
      member: "Get",
      args: [MANAGER, "InhibitDelayMaxUSec"],
      serial: 77,
      littleEndian: false,
    })
    assert.deepInclude(answerTo(session, big)?.fields, { replySerial: 77, signature: "v" })
  })

  it("passes over header fields that it does not know", () => {
    const session = greeted()
    const [u, s] = ["u".codePointAt(0) ?? 0, "s".codePointAt(0) ?? 0]
    const message = call({
      destination: "org.freedesktop.DBus",
      path: "/org/freedesktop/DBus",
      interface: "org.freedesktop.DBus",
      member: "AddMatch",
      args: ["type='signal'"],
      serial: 9,
      more: [
        [200, 1, u, 0, 1, 2, 3, 4],
        [201, 1, s, 0, 2, 0, 0, 0, 65, 66, 0],
      ],
    })
    assert.deepInclude(answerTo(session, message)?.fields, { replySerial: 9 })
  })

  it("tells the shutdown to those whose rules let it through", () => {
    const heard = (...rules: ReadonlyArray<string>) => {
      const session = greeted()
      for (const rule of rules) session.receive(calls.addMatch(rule))
      return session.prepareForShutdown(true) !== undefined
    }
    assert.isFalse(heard())
    assert.isTrue(heard("type='signal'"))
    assert.isTrue(heard("type='signal',path_namespace='/org/freedesktop'"))
    assert.isFalse(heard("type='signal',member='NameOwnerChanged'", "type='method_call'"))
    assert.isTrue(heard("type='error'", "member='PrepareForShutdown'"))
  })

  describe("refuses by an error", () => {
    const refusals: ReadonlyArray<readonly [string, Uint8Array, string]> = [
      ["a method that it has not", calls.unknown(), "UnknownMethod"],
      ["a property that it has not", calls.get("IdleHint"), "UnknownProperty"],
      ["a second Hello", calls.hello(2), "Failed"],
      ["to inhibit something else", calls.inhibit("sleep:idle"), "NotSupported"],
      ["to be blocked", calls.inhibit("shutdown", "block"), "NotSupported"],
      ["a rule that is too long", calls.addMatch("x".repeat(2000)), "LimitsExceeded"],
    ]
    for (const [what, bytes, name] of refusals)
      it(what, () => {
        const answer = answerTo(greeted(), bytes)
        assert.strictEqual(answer?.type, 3)
        assert.strictEqual(answer?.fields.errorName, `org.freedesktop.DBus.Error.${name}`)
      })
    it("an inhibitor for who cannot be sent a descriptor", () => {
      const session = begin()
      session.receive(Buffer.from("\0AUTH EXTERNAL 30\r\nBEGIN\r\n"))
      session.receive(calls.hello())
      assert.strictEqual(
        answerTo(session, calls.inhibit())?.fields.errorName,
        "org.freedesktop.DBus.Error.NotSupported",
      )
    })
    it("more rules than anybody needs", () => {
      const session = greeted()
      const names = Array.from({ length: 40 }, () => answerTo(session, calls.addMatch())?.fields.errorName)
      assert.strictEqual(names.filter((name) => name !== undefined).length, 8)
    })
  })

  it("answers nobody who waits for no answer, and grants them nothing", () => {
    assert.deepStrictEqual(greeted().receive(calls.inhibit("shutdown", "delay", 4, 1)), [])
  })

  it("passes over answers and signals", () => {
    const session = greeted()
    for (const type of [2, 3, 4, 99])
      assert.deepStrictEqual(
        session.receive(call({ path: "/", interface: "a.b", member: "C", destination: "d", type })),
        [],
      )
  })

  describe("ends", () => {
    const known = "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
    const hello = calls.hello()
    const broken = (change: (bytes: Buffer) => void) => {
      const bytes = Buffer.from(hello)
      change(bytes)
      return Buffer.concat([Buffer.from(known), bytes])
    }
    const ends: ReadonlyArray<readonly [string, Uint8Array | string, string]> = [
      ["without its NUL", "AUTH\r\n", "does not begin with a NUL"],
      ["with a line that does not end", `\0${"A".repeat(300)}`, "a line without an end"],
      ["with a line that ends in LF", "\0AUTH\n", "a line that does not end in CR LF"],
      ["with lines for ever", `\0${"AUTH\r\n".repeat(20)}`, "too many lines before BEGIN"],
      ["when who is not known begins", "\0BEGIN\r\n", "BEGIN of a client that is not known"],
      ["before Hello", Buffer.concat([Buffer.from(known), calls.get()]), "calls Get before Hello"],
      ["with no byte order", broken((bytes) => bytes.writeUInt8(0x41, 0)), "no byte order"],
      ["with another protocol", broken((bytes) => bytes.writeUInt8(2, 3)), "another version of the protocol"],
      ["with a huge body", broken((bytes) => bytes.writeUInt32LE(0xffff_fff0, 4)), "a message of 4294967"],
      ["with huge fields", broken((bytes) => bytes.writeUInt32LE(0xffff_fff0, 12)), "a message of 4294967"],
      ["with serial number 0", broken((bytes) => bytes.writeUInt32LE(0, 8)), "serial number 0"],
      [
        "with fields that are shorter",
        broken((bytes) => bytes.writeUInt32LE(hello.readUInt32LE(12) - 1, 12)),
        "header fields that end elsewhere",
      ],
      [
        "with padding that says something",
        broken((bytes) => bytes.writeUInt8(1, bytes.length - 1)),
        "padding that is not zero",
      ],
      [
        "with a string that is longer than its message",
        broken((bytes) => bytes.writeUInt32LE(5000, 20)),
        "ends in the middle of a value",
      ],
      [
        "with a string that does not end",
        broken((bytes) => bytes.writeUInt32LE(20, 20)),
        "a string without its end",
      ],
      [
        "with a string that is not UTF-8",
        broken((bytes) => bytes.writeUInt8(0xff, 26)),
        "a string that is not UTF-8",
      ],
      ["with a NUL in a string", broken((bytes) => bytes.writeUInt8(0, 26)), "a string with a NUL in it"],
      ["with a field of another type", broken((bytes) => bytes.writeUInt8(115, 18)), 'a path of type "s"'],
    ]
    for (const [how, bytes, reason] of ends)
      it(how, () => {
        const session = begin()
        assert.include(closed(session.receive(Buffer.from(bytes as Uint8Array))), reason)
        assert.deepStrictEqual(session.receive(hello), [])
        assert.isUndefined(session.prepareForShutdown(true))
      })
    it("with other arguments than the method has", () => {
      const wrong = call({
        destination: "org.freedesktop.login1",
        path: "/org/freedesktop/login1",
        interface: MANAGER,
        member: "Inhibit",
        args: ["shutdown"],
      })
      assert.strictEqual(closed(greeted().receive(wrong)), "other arguments than were asked for")
    })
  })
})

describe("SASL", () => {
  const answers = (uid: number, text: string) => sent(begin(uid).receive(Buffer.from(`\0${text}`))).toString()
  const rejected = "REJECTED EXTERNAL\r\n"
  const cases: ReadonlyArray<readonly [string, number, string, string]> = [
    ["takes the uid in the first line, as sd-bus sends it", 0, "AUTH EXTERNAL 30\r\n", `OK ${guid}\r\n`],
    [
      "takes it in hexadecimal digits of its decimal ones",
      1000,
      "AUTH EXTERNAL 31303030\r\n",
      `OK ${guid}\r\n`,
    ],
    ["takes it after being asked", 0, "AUTH EXTERNAL\r\nDATA 30\r\n", `DATA\r\nOK ${guid}\r\n`],
    ["rejects another uid than the kernel says", 1000, "AUTH EXTERNAL 30\r\n", rejected],
    ["rejects it after being asked, too", 1000, "AUTH EXTERNAL\r\nDATA 30\r\n", `DATA\r\n${rejected}`],
    ["rejects what is no number", 0, "AUTH EXTERNAL zz30\r\nAUTH EXTERNAL 2d30\r\n", rejected + rejected],
    ["rejects other mechanisms", 0, "AUTH DBUS_COOKIE_SHA1 30\r\nAUTH ANONYMOUS\r\n", rejected + rejected],
    [
      "begins anew after CANCEL",
      0,
      "AUTH EXTERNAL\r\nCANCEL\r\nDATA 30\r\n",
      `DATA\r\n${rejected}ERROR "not understood here"\r\n`,
    ],
    [
      "understands nothing else",
      0,
      "FOO\r\nNEGOTIATE_UNIX_FD\r\n",
      'ERROR "not understood here"\r\n'.repeat(2),
    ],
  ]
  for (const [what, uid, text, expected] of cases)
    it(what, () => assert.strictEqual(answers(uid, text), expected))
})
