// The command line, the host name, the machine's identity and the loopback interface.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import { Cmdline } from "@kios/core/Cmdline"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { MachineId } from "@kios/core/capabilities/MachineId"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as HostnameStage from "@kios/stages-runtime/Hostname"
import * as LoopbackStage from "@kios/stages-runtime/Loopback"
import * as MachineIdStage from "@kios/stages-runtime/MachineId"
import { earlier, outcome, up, withProc } from "./support.ts"

describe("command-line", () => {
  it.effect("is read, and what is wrong in it is a warning each", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ cmdline: "quiet kios.log=chatty kios.colour datapart=none" })
      const services = yield* up(CommandLine.stage, machine)
      assert.deepStrictEqual(Context.get(services, Cmdline).values, {
        datapart: "none",
        logLevel: "info",
        modules: [],
      })
      assert.strictEqual(machine.kmsg.length, 2)
      assert.match(machine.kmsg[0] ?? "", /^warning warn kernel command line: kios\.log=chatty: /u)
      assert.match(machine.kmsg[1] ?? "", /^warning warn kernel command line: kios\.colour: no such key/u)
    }),
  )
  it.effect("kios.log= decides what is logged from then on", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ cmdline: "kios.log=error kios.colour" })
      yield* up(CommandLine.stage, machine)
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
  for (const errno of ["ENOENT", "EIO"])
    it.effect(`${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = yield* withProc()
        machine.failOn("readText", errno, { path: "/proc/cmdline" })
        assert.strictEqual(yield* outcome(CommandLine.stage, machine), errno)
      }),
    )
})

describe("hostname", () => {
  const long = "n".repeat(64)
  const rows: ReadonlyArray<
    readonly [what: string, cmdline: string, file: string | undefined, expected: string, warns: boolean]
  > = [
    ["the command line first", "kios.hostname=from-cmdline", "from-file\n", "from-cmdline", false],
    ["then the file", "", "from-file\n", "from-file", false],
    ["then a default", "", undefined, "kios", false],
    ["an empty file is none", "", "\n\n", "kios", false],
    [
      "comments and blanks are passed over",
      "",
      "# the name\n\n  node-7.example.com  \nsecond\n",
      "node-7.example.com",
      false,
    ],
    ["capitals are lowered", "", "Node-7\n", "node-7", false],
    ["64 bytes are allowed", "", `${long}\n`, long, false],
    ["65 are not", "", `${long}n\n`, "kios", true],
    ["no underscores", "", "node_7\n", "kios", true],
    ["no dash at the end", "", "node-\n", "kios", true],
    ["no empty label", "", "a..b\n", "kios", true],
    ["no umlauts", "", "größe\n", "kios", true],
    ["no shell", "", "$(reboot)\n", "kios", true],
    ["a bad name on the command line leaves the file's", "kios.hostname=Bad_Name", "good\n", "good", false],
  ]
  for (const [what, cmdline, file, expected, warns] of rows)
    it.effect(what, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make(file === undefined ? {} : { files: { "/etc/hostname": file } })
        const services = yield* up(HostnameStage.stage, machine, earlier(cmdline))
        assert.strictEqual(Context.get(services, Hostname).name, expected)
        assert.strictEqual(machine.hostname(), expected)
        machine.expectCalls([`sethostname("${expected}")`])
        assert.strictEqual(
          machine.kmsg.some((line) => line.includes("is not a DNS name (RFC 1123), using kios")),
          warns,
        )
      }),
    )
  for (const errno of ["EPERM", "EINVAL"])
    it.effect(`sethostname: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make()
        machine.failOn("sethostname", errno)
        assert.strictEqual(yield* outcome(HostnameStage.stage, machine), errno)
      }),
    )
  const renamed = (cmdline: string) =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/etc/hostname": "one\n" } })
      const hostname = Context.get(yield* up(HostnameStage.stage, machine, earlier(cmdline)), Hostname)
      const refresh = (text: string) => {
        machine.write({ "/etc/hostname": text })
        return Effect.provide(hostname.refresh ?? Effect.die("no refresh"), TestMachine.platform(machine))
      }
      return { machine, refresh }
    })
  it.effect("is set again when the file has changed, and only then", () =>
    Effect.gen(function* () {
      const { machine, refresh } = yield* renamed("")
      assert.strictEqual(yield* refresh("one"), "one")
      assert.strictEqual(yield* refresh("two\n"), "two")
      assert.strictEqual(yield* refresh("two\n"), "two")
      machine.expectCalls(['sethostname("one")', 'sethostname("two")'])
      assert.strictEqual(machine.hostname(), "two")
    }),
  )
  it.effect("stays what it is when the new one is none, or is refused", () =>
    Effect.gen(function* () {
      const { machine, refresh } = yield* renamed("")
      assert.strictEqual(yield* refresh("no name"), "one")
      assert.strictEqual(yield* refresh(""), "one")
      machine.failOn("sethostname", "EPERM")
      assert.strictEqual(yield* refresh("two"), "one")
      assert.strictEqual(machine.hostname(), "one")
      assert.include(machine.kmsg.join("\n"), "the host name stays one: sethostname")
    }),
  )
  it.effect("of the command line is not changed by the file", () =>
    Effect.gen(function* () {
      const { refresh } = yield* renamed("kios.hostname=fixed")
      assert.strictEqual(yield* refresh("two\n"), "fixed")
    }),
  )
  it.effect("a file that cannot be read is as good as none", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/etc/hostname": "x" } })
      machine.failOn("readText", "EIO")
      assert.strictEqual(yield* outcome(HostnameStage.stage, machine), "up")
      assert.strictEqual(machine.hostname(), "kios")
    }),
  )
})

describe("machine-id", () => {
  const kept = "0123456789abcdef0123456789abcdef"
  it.effect("stays what it is", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ files: { "/etc/machine-id": `${kept}\n` } })
      const seen = machine.log().length
      assert.strictEqual(Context.get(yield* up(MachineIdStage.stage, machine), MachineId).id, kept)
      assert.strictEqual(machine.log().length, seen)
    }),
  )
  for (const [what, content, warns] of [
    ["none", undefined, false],
    ["an empty file", "", false],
    ["uninitialized, as machine-id(5) has it", "uninitialized\n", false],
    ["capitals", kept.toUpperCase(), true],
    ["too short", kept.slice(1), true],
    ["something else", "no machine id", true],
  ] as const)
    it.effect(`${what}: a new one is written`, () =>
      Effect.gen(function* () {
        const machine = yield* withProc({
          files: { "/etc/": "", ...(content === undefined ? {} : { "/etc/machine-id": content }) },
        })
        const { id } = Context.get(yield* up(MachineIdStage.stage, machine), MachineId)
        assert.match(id, /^[0-9a-f]{32}$/u)
        assert.strictEqual(machine.read("/etc/machine-id"), `${id}\n`)
        if (content === undefined) assert.strictEqual(machine.modeOf("/etc/machine-id"), 0o444)
        assert.strictEqual(
          machine.kmsg.some((line) => line.includes("held no machine id")),
          warns,
        )
      }),
    )
  it.effect("two machines have two", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ files: { "/etc/": "" } })
      const first = Context.get(yield* up(MachineIdStage.stage, machine), MachineId).id
      yield* machine.kernel.unlink("/etc/machine-id")
      assert.notStrictEqual(Context.get(yield* up(MachineIdStage.stage, machine), MachineId).id, first)
    }),
  )
  for (const errno of ["EROFS", "ENOSPC"])
    it.effect(`${errno} fails the stage, which is optional`, () =>
      Effect.gen(function* () {
        const machine = yield* withProc({ files: { "/etc/": "" } })
        machine.failOn("writeFile", errno)
        assert.strictEqual(yield* outcome(MachineIdStage.stage, machine), errno)
        assert.strictEqual(MachineIdStage.stage.criticality, "optional")
      }),
    )
})

describe("loopback", () => {
  it.effect("comes up, and nothing else does", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      assert.strictEqual(Context.get(yield* up(LoopbackStage.stage, machine), Loopback).interface, "lo")
      assert.deepStrictEqual(
        [...machine.interfaces],
        [
          ["lo", true],
          ["eth0", false],
        ],
      )
      machine.expectCalls(['ioctl(SIOCSIFFLAGS, "lo", IFF_UP)'])
    }),
  )
  for (const [syscall, errno] of [
    ["ioctl", "ENODEV"],
    ["ioctl", "EPERM"],
    ["socket", "EAFNOSUPPORT"],
  ] as const)
    it.effect(`${syscall}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make()
        machine.failOn(syscall, errno)
        assert.strictEqual(yield* outcome(LoopbackStage.stage, machine), errno)
      }),
    )
})
