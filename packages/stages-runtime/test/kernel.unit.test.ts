// Kernel modules and kernel parameters.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Schema } from "effect"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as ModulesDep from "@kios/stages-runtime/ModulesDep"
import * as Sysctl from "@kios/stages-runtime/Sysctl"
import { earlier, outcome, up, withProc } from "./support.ts"

describe("ModulesDep", () => {
  it("names, as the kernel has them", () => {
    assert.deepStrictEqual(
      ["kernel/fs/overlayfs/overlay.ko", "a/nf-conntrack.ko.xz", "b.ko.zst", "c.ko.gz", "plain"].map(
        ModulesDep.nameOf,
      ),
      ["overlay", "nf_conntrack", "b", "c", "plain"],
    )
  })
  const table = ModulesDep.parse(
    "k/a.ko: k/b.ko k/c.ko\nk/b.ko: k/c.ko\nk/c.ko:\nk/d.ko: k/gone.ko\nno colon here\n:\n\nk/x.ko: k/y.ko\nk/y.ko: k/x.ko\n",
  )
  const order = (...wanted: ReadonlyArray<string>) => {
    const { load, unknown } = ModulesDep.order(table, wanted)
    return [load.map((entry) => entry.name), unknown] as const
  }
  it("each after what it needs, and each once", () => {
    assert.deepStrictEqual(order("a"), [["c", "b", "a"], []])
    assert.deepStrictEqual(order("c", "a", "b"), [["c", "b", "a"], []])
    assert.deepStrictEqual(order(), [[], []])
  })
  it("what is missing, with what needs it", () => {
    assert.deepStrictEqual(order("d", "z"), [
      ["d"],
      [
        { name: "gone", neededBy: "d" },
        { name: "z", neededBy: undefined },
      ],
    ])
  })
  it("the farthest first, as depmod lists them, also where their own lines do not say so", () => {
    const flat = ModulesDep.parse("a.ko: near.ko far.ko\nnear.ko:\nfar.ko:\n")
    assert.deepStrictEqual(
      ModulesDep.order(flat, ["a"]).load.map((entry) => entry.name),
      ["far", "near", "a"],
    )
  })
  it("a circle ends", () => assert.deepStrictEqual(order("x"), [["y", "x"], []]))
  it.prop(
    "whatever the file says, every module is loaded once and after those that are in it",
    [Schema.String],
    ([text]) => {
      const parsed = ModulesDep.parse(text)
      const { load } = ModulesDep.order(parsed, [...parsed.keys()])
      assert.strictEqual(new Set(load.map((entry) => entry.name)).size, load.length)
    },
  )
})

const modules = {
  llc: {},
  bridge: { needs: ["llc"] },
  br_netfilter: { needs: ["bridge", "llc"], path: "kernel/net/bridge/br_netfilter.ko.xz" },
  overlay: { filesystems: ["overlay"] },
}
const stages = KernelModules.stages({ boot: ["overlay"], node: ["br-netfilter"] })

describe("modules", () => {
  it.effect("are loaded in order, each after what it needs", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ modules, osrelease: "6.1.0" })
      const before = machine.log().length
      const services = yield* up(stages.node, machine)
      assert.deepStrictEqual(Context.get(services, Modules).loaded, ["llc", "bridge", "br_netfilter"])
      assert.deepStrictEqual(machine.log().slice(before), [
        'finit_module("/lib/modules/6.1.0/kernel/llc.ko", "")',
        'finit_module("/lib/modules/6.1.0/kernel/bridge.ko", "")',
        'finit_module("/lib/modules/6.1.0/kernel/net/bridge/br_netfilter.ko.xz", "")',
      ])
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
  it.effect("get their options from the command line, by either spelling", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ modules })
      yield* up(stages.node, machine, earlier("br-netfilter.debug=1 br_netfilter.quiet bridge=x other.y=1"))
      assert.deepStrictEqual(
        [...machine.modules],
        [
          ["llc", ""],
          ["bridge", ""],
          ["br_netfilter", "debug=1 quiet"],
        ],
      )
    }),
  )
  it.effect("kios.modules= adds some, before the data partition is looked for", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ modules })
      yield* up(stages.boot, machine, earlier("kios.modules=llc"))
      assert.include([...machine.modules.keys()], "llc")
    }),
  )
  it.effect("what is loaded already is no problem, and is not counted", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ modules })
      yield* up(stages.boot, machine)
      const services = yield* up(stages.boot, machine)
      assert.deepStrictEqual(Context.get(services, BootModules).loaded, [])
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
  it.effect("what is built in is no problem, what is nowhere is told", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({
        modules: {},
        osrelease: "6.1.0",
        files: { "/lib/modules/6.1.0/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n" },
      })
      yield* up(stages.boot, machine)
      assert.deepStrictEqual(machine.kmsg, [])
      yield* up(stages.node, machine)
      assert.deepStrictEqual(machine.kmsg, [
        "warning warn module br_netfilter is not in /lib/modules/6.1.0; wanted by the image's own list",
      ])
    }),
  )
  it.effect("an image without modules for this kernel says so and boots", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({ modules, osrelease: "6.1.0" })
      yield* machine.kernel.unlink("/lib/modules/6.1.0/modules.dep")
      assert.strictEqual(yield* outcome(stages.boot, machine), "up")
      assert.isTrue(
        machine.kmsg.some((line) => line.startsWith("err error no modules in /lib/modules/6.1.0: open(")),
      )
    }),
  )
  for (const errno of ["ENOEXEC", "ENOENT", "EKEYREJECTED", "ENODEV", "EPERM", "ENOMEM"])
    it.effect(`${errno}: told by name, and the others are loaded`, () =>
      Effect.gen(function* () {
        const machine = yield* withProc({ modules })
        machine.failOn("finit_module", errno, { path: /llc/u })
        const both = KernelModules.stages({ boot: ["br_netfilter", "overlay"], node: [] })
        const services = yield* up(both.boot, machine)
        assert.deepStrictEqual(Context.get(services, BootModules).loaded, ["overlay"])
        assert.isTrue(
          machine.kmsg.some(
            (line) =>
              line.startsWith("warning warn module llc was not loaded: finit_module(") &&
              line.includes(errno),
          ),
        )
      }),
    )
  it.effect("a machine without /proc is a failed boot", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* outcome(stages.boot, TestMachine.make({ modules })), "ENOENT")
    }),
  )
})

describe("sysctl", () => {
  it("the file of a key", () => {
    assert.strictEqual(Sysctl.pathOf("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward")
    assert.strictEqual(
      Sysctl.pathOf("net.ipv4.conf.eth0/1.rp_filter"),
      "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
    )
    assert.strictEqual(Sysctl.pathOf("fs.aio-max-nr"), "/proc/sys/fs/aio-max-nr")
  })
  it.effect("a star is every interface that is there, and none is no failure", () =>
    Effect.gen(function* () {
      const of = (name: string) => `net.ipv6.conf.${name}.accept_ra`
      const machine = yield* withProc({
        sysctls: Object.fromEntries(["all", "eth0", "vlan/5"].map((name) => [of(name), "1"])),
      })
      const table = { ...Sysctl.interfaces, "net.ipv4.conf.*.rp_filter": "1" }
      const services = yield* up(Sysctl.make(table), machine)
      assert.deepStrictEqual(Context.get(services, Sysctls).missing, [])
      assert.strictEqual(machine.sysctls.get(of("eth0")), "2")
      assert.strictEqual(machine.sysctls.get(of("vlan/5")), "2")
    }),
  )
  const all = { ...Sysctl.node, ...Sysctl.hardening }
  it.effect("every parameter is written once, and nothing else", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({
        sysctls: Object.fromEntries(Object.keys(all).map((key) => [key, "old"])),
      })
      const services = yield* up(Sysctl.stage, machine)
      assert.deepStrictEqual(Context.get(services, Sysctls).missing, [])
      for (const [key, value] of Object.entries(all)) assert.strictEqual(machine.sysctls.get(key), value, key)
      assert.strictEqual(machine.log({ only: ["writeControl"] }).length, Object.keys(all).length)
      assert.deepStrictEqual(machine.log({ only: ["writeFile", "makeDirectory"] }), [])
    }),
  )
  it.effect("one that this kernel does not have is no news, one that it refuses is", () =>
    Effect.gen(function* () {
      const machine = yield* withProc({
        sysctls: { "vm.a": "0", "vm.b": { value: "0", accepts: (value) => value === "0" } },
      })
      const services = yield* up(Sysctl.make({ "vm.missing": "1", "vm.b": "7", "vm.a": "1" }), machine)
      assert.deepStrictEqual(Context.get(services, Sysctls).missing, ["vm.missing", "vm.b"])
      assert.deepStrictEqual(machine.kmsg, [
        'warning warn vm.b=7: write("/proc/sys/vm/b"): EINVAL (the kernel refused the value)',
      ])
      assert.strictEqual(machine.sysctls.get("vm.a"), "1")
    }),
  )
  for (const errno of ["EPERM", "EINVAL", "EACCES", "EROFS"])
    it.effect(`${errno} for all of them still boots`, () =>
      Effect.gen(function* () {
        const machine = yield* withProc()
        machine.failOn("writeControl", errno)
        assert.strictEqual(yield* outcome(Sysctl.stage, machine), "up")
        assert.strictEqual(machine.kmsg.length, Object.keys(all).length)
      }),
    )
})
