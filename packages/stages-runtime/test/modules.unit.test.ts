// Modules by the devices that are there, by configuration, and from the data partition.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { Modules } from "@kios/core/capabilities/Modules"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as ModprobeConfig from "@kios/stages-runtime/ModprobeConfig"
import * as ModulesAlias from "@kios/stages-runtime/ModulesAlias"
import { earlier, outcome, up } from "./support.ts"

describe("aliases", () => {
  const table = ModulesAlias.parse(
    [
      "# Aliases extracted from modules themselves.",
      "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e",
      "alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000",
      "alias pci:v*d*sv*sd*bc01sc06i01* ahci",
      "alias acpi*:LNXPWRBN:* button",
      "alias virtio:d00000002v* virtio-blk",
      "alias scsi:t-0x00* sd_mod",
      "alias input:b*v*p*e*-e*1,*k*r*a*m*l*s*f*w* evdev",
      "alias cpu:type:x86,ven*fam*mod*:feature:*0081* crc32c_intel",
      "alias usb:v0BDAp8152d*dc*dsc*dp*ic[fF]Fisc*ip*in* r8152",
      "alias platform:a-b[0-9] a-driver",
      "alias crypto-crc32c crc32c_generic",
      "alias crypto-crc32c crc32c_intel",
      "alias broken",
      "alias  ",
    ].join("\n"),
  )
  for (const [alias, modules] of [
    ["pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00", ["e1000e"]],
    ["pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", ["ahci"]],
    ["pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00", []],
    ["acpi:LNXPWRBN:", ["button"]],
    ["virtio:d00000002v00001AF4", ["virtio_blk"]],
    ["virtio:d00000001v00001AF4", []],
    ["scsi:t-0x00", ["sd_mod"]],
    ["scsi:t-0x05", []],
    ["input:b0019v0000p0001e0000-e0,1,k74,ramlsfw", ["evdev"]],
    ["usb:v0BDAp8152d3000dc00dsc00dp00icFFiscFFip00in00", ["r8152"]],
    ["crypto-crc32c", ["crc32c_generic", "crc32c_intel"]],
    ["crypto_crc32c", ["crc32c_generic", "crc32c_intel"]],
    ["platform:a_b7", ["a_driver"]],
    ["platform:a-b7", ["a_driver"]],
    ["crypto-crc32", []],
    ["", []],
  ] as const)
    it(`${alias || "nothing"}: ${modules.join(", ") || "no module"}`, () =>
      assert.deepStrictEqual(table.match(alias), modules))

  it("patterns are those of fnmatch(3)", () => {
    for (const [pattern, text, expected] of [
      ["a*c", "abbc", true],
      ["a*c", "abbd", false],
      ["a?c", "abc", true],
      ["a?c", "ac", false],
      ["a[bc]d", "acd", true],
      ["a[!bc]d", "acd", false],
      ["a[!bc]d", "axd", true],
      ["a[0-9]", "a7", true],
      ["a[", "a[", true],
      ["a.c", "abc", false],
      ["a+(b)", "a+(b)", true],
      ["[z-a]", "z", false],
    ] as const)
      assert.strictEqual(ModulesAlias.matches(pattern, text), expected, `${pattern} ${text}`)
  })
  it.prop("no text and no pattern is an error", [Schema.String, Schema.String], ([text, alias]) => {
    ModulesAlias.parse(`alias ${text} module\n${text}`).match(alias)
    ModulesAlias.matches(text, alias)
  })
})

describe("modprobe.d", () => {
  const config = ModprobeConfig.parse(
    [
      {
        path: "/etc/modprobe.d/a.conf",
        text: [
          "# a comment",
          "options net-dummy numdummies=0 \\",
          "  debug",
          "blacklist e1000e",
          "install evil /bin/false",
          "softdep a pre: b c-d post: e",
          "alias eth0 virtio_net",
          "install x /sbin/modprobe y",
          "remove x /bin/true",
          "options",
          "sing a song",
        ].join("\n"),
      },
    ],
    [
      ["net_dummy.numdummies", "3"],
      ["modprobe.blacklist", "ahci,sata-nv"],
      ["module_blacklist", "overlay,nope"],
      ["i915.name", "two words"],
      ["quiet", ""],
    ],
  )
  it("is followed, and the command line after it", () => {
    assert.deepStrictEqual(config.options.get("net_dummy"), ["numdummies=0", "debug", "numdummies=3"])
    assert.deepStrictEqual(config.options.get("i915"), ['name="two words"'])
    assert.deepStrictEqual([...config.blacklist], ["e1000e", "ahci", "sata_nv"])
    assert.deepStrictEqual(
      [...config.never],
      [
        ["evil", "/etc/modprobe.d/a.conf"],
        ["overlay", "module_blacklist"],
        ["nope", "module_blacklist"],
      ],
    )
    assert.deepStrictEqual([...config.softdeps], [["a", { pre: ["b", "c_d"], post: ["e"] }]])
    assert.strictEqual(config.aliases, "alias eth0 virtio_net\n")
  })
  it("says which lines are not", () =>
    assert.deepStrictEqual(config.problems, [
      '/etc/modprobe.d/a.conf: "install x /sbin/modprobe y": no command can be run on this node',
      '/etc/modprobe.d/a.conf: "remove x /bin/true": no command can be run on this node',
      '/etc/modprobe.d/a.conf: "options": it names no module',
      '/etc/modprobe.d/a.conf: "sing a song": options, blacklist, alias, softdep and install /bin/false are known',
    ]))
  it("modules-load.d has a name a line", () =>
    assert.deepStrictEqual(ModprobeConfig.parseLoadList("# x\n; y\n\n wireguard \nipip\n"), [
      "wireguard",
      "ipip",
    ]))
})

const release = "6.1.0"
/** A machine with /proc and /sys. */
const machineOf = Effect.fnUntraced(function* (options: TestMachine.TestMachineOptions) {
  const machine = TestMachine.make({
    osrelease: release,
    ...options,
    files: { "/proc/": "", "/sys/": "", ...options.files },
  })
  for (const fstype of ["proc", "sysfs"] as const)
    yield* Effect.orDie(
      machine.kernel.mount({
        source: fstype,
        target: fstype === "proc" ? "/proc" : "/sys",
        fstype,
        flags: [],
      }),
    )
  return machine
})

const pci = (rest: string) => `pci:v00001AF4d0000${rest}`
const hardware: TestMachine.TestMachineOptions = {
  devices: {
    "pci/0000:00:02.0": pci("1001sv00001AF4sd00000002bc01sc00i00"),
    "pci/0000:00:03.0": pci("1000sv00001AF4sd00000001bc02sc00i00"),
    "pci/0000:00:04.0": "pci:v0000DEADd0000BEEFsv00000000sd00000000bc02sc00i00",
    "acpi/LNXPWRBN:00": "acpi:LNXPWRBN:",
    "cpu/cpu0": "cpu:type:x86",
  },
  modules: {
    crc: {},
    scsi_ctl: {
      path: "kernel/drivers/scsi/scsi_ctl.ko",
      needs: ["scsi_mod"],
      aliases: ["pci:v00001AF4d00001001sv*sd*bc*sc*i*"],
      devices: { "scsi/0:0:0:0": "scsi:t-0x00" },
    },
    scsi_mod: { path: "kernel/drivers/scsi/scsi_mod.ko.xz" },
    sd_mod: {
      path: "kernel/drivers/scsi/sd_mod.ko.zst",
      needs: ["scsi_mod"],
      aliases: ["scsi:t-0x00*"],
      softdep: "pre: crc post: nobody",
    },
    nic: { path: "kernel/drivers/net/nic.ko", aliases: ["pci:v00001AF4d00001000sv*sd*bc*sc*i*"] },
    button: { path: "kernel/drivers/acpi/button.ko", aliases: ["acpi*:LNXPWRBN:*"] },
    cpuid: { aliases: ["cpu:type:x86*"] },
    wireguard: { aliases: ["rtnl-link-wireguard"] },
    overlay: {},
  },
}
const stages = KernelModules.stages({ boot: ["overlay"], node: [], pods: ["wireguard"] })

describe("devices", () => {
  it.effect("boot-modules loads the drivers of disks, also of those that appear, and nothing else", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf(hardware)
      const services = yield* up(stages.boot, machine)
      assert.deepStrictEqual(Context.get(services, BootModules).loaded, [
        "overlay",
        "scsi_mod",
        "scsi_ctl",
        "crc",
        "sd_mod",
      ])
      assert.deepStrictEqual(machine.kmsg, [])
      assert.strictEqual(machine.sysctls.get("kernel.modprobe"), "")
    }),
  )
  it.effect("node-modules loads those of all devices, and says what has none", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf(hardware)
      yield* up(stages.boot, machine)
      const services = yield* up(stages.node, machine)
      assert.deepStrictEqual(Context.get(services, Modules).loaded, ["button", "nic"])
      assert.notInclude([...machine.modules.keys()], "cpuid")
      // On the machine in memory no device has a driver; on Linux those that were just loaded have theirs.
      assert.deepStrictEqual(
        machine.kmsg.filter((line) => line.includes("DEAD")),
        [
          "warning warn the network interface 0000:00:04.0 (DEAD:BEEF) has no driver: no module in the image knows it, or it refused the device",
        ],
      )
    }),
  )
  it.effect("a driver that is refused is told with the device that wants it, and what it needs as well", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf(hardware)
      machine.failOn("finit_module", "ENOKEY", { path: /scsi_mod/u })
      const services = yield* up(stages.boot, machine)
      assert.deepStrictEqual(Context.get(services, BootModules).loaded, ["overlay"])
      assert.deepStrictEqual(machine.kmsg, [
        'warning warn module scsi_mod was not loaded: finit_module("/lib/modules/6.1.0/kernel/drivers/scsi/scsi_mod.ko.xz"): ENOKEY (it is signed by a key that this kernel does not know (module.sig_enforce)); wanted by scsi_ctl, device 0000:00:02.0 (pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00)',
      ])
    }),
  )
  it.effect(
    "a blacklisted driver is not loaded for a device, but by name; one that is never loaded, never",
    () =>
      Effect.gen(function* () {
        const cmdline = "modprobe.blacklist=nic,scsi-ctl module_blacklist=button kios.modules=scsi_ctl,button"
        const machine = yield* machineOf({
          ...hardware,
          files: {
            "/etc/modprobe.d/x.conf": "options wireguard udp=1\n",
            "/etc/modules-load.d/a.conf": "nic\n",
          },
        })
        yield* up(stages.boot, machine, earlier(cmdline))
        assert.deepStrictEqual(
          [...machine.modules.keys()],
          ["overlay", "scsi_mod", "scsi_ctl", "crc", "sd_mod"],
        )
        assert.deepStrictEqual(machine.kmsg, [
          "warning warn module button is not loaded: module_blacklist says never; wanted by kios.modules=",
        ])
        yield* up(stages.node, machine, earlier(cmdline))
        assert.isTrue(machine.modules.has("nic"))
        assert.isFalse(machine.modules.has("button"))
        yield* up(
          stages.pods,
          machine,
          Layer.mergeAll(earlier(cmdline), Layer.succeed(ContainerRuntime, {} as never)),
        )
        assert.strictEqual(machine.modules.get("wireguard"), "udp=1")
      }),
  )
  it.effect("names of modules-load.d may be aliases; one that is nowhere is told with its file", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf({
        modules: hardware.modules ?? {},
        files: {
          "/etc/modules-load.d/cni.conf": "rtnl-link-wireguard\nno-such\n",
          "/etc/modules-load.d/x": "y",
        },
      })
      const services = yield* up(stages.node, machine)
      assert.deepStrictEqual(Context.get(services, Modules).loaded, ["wireguard"])
      assert.deepStrictEqual(machine.kmsg, [
        "warning warn module no_such is not in /lib/modules/6.1.0; wanted by /etc/modules-load.d/cni.conf",
      ])
    }),
  )
  for (const errno of ["EACCES", "EIO"])
    it.effect(`${errno} from sysfs: what is listed is loaded all the same`, () =>
      Effect.gen(function* () {
        const machine = yield* machineOf(hardware)
        machine.failOn("readDirectory", errno, { path: "/sys/bus" })
        const services = yield* up(stages.boot, machine)
        assert.deepStrictEqual(Context.get(services, BootModules).loaded, ["overlay"])
        assert.isTrue(machine.kmsg.some((line) => line.includes(errno)))
      }),
    )
})

describe("the data partition's modules", () => {
  const before = Layer.merge(earlier(), Layer.succeed(DataPartition, { device: "/dev/vda1" }))
  const data = KernelModules.DATA_MODULES
  it.effect("files are loaded at every boot, in whatever order they can be", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf({
        modules: { base: {}, top: { needs: ["base"] } },
        files: {
          [`${data}/a-top.ko`]: "\x7fELF of module top.",
          [`${data}/z-base.ko`]: "\x7fELF of module base.",
          [`${data}/bad.ko`]: "no module",
          [`${data}/README`]: "",
        },
      })
      yield* up(stages.data, machine, before)
      assert.deepStrictEqual([...machine.modules.keys()], ["base", "top"])
      assert.deepStrictEqual(
        machine.kmsg.filter((line) => line.startsWith("warning")),
        [
          `warning warn module bad.ko of the data partition was not loaded: finit_module("${data}/bad.ko"): ENOEXEC (not a module for this kernel: built for another version, or damaged)`,
        ],
      )
    }),
  )
  it.effect(
    "a directory of depmod's is loaded from by device and by name, with what it needs of the image",
    () =>
      Effect.gen(function* () {
        const machine = yield* machineOf({
          modules: { base: {}, late: {}, extra: { needs: ["base"] } },
          devices: { "pci/0000:00:05.0": pci("9999sv00000000sd00000000bc03sc00i00") },
          files: {
            [`${data}/${release}/modules.dep`]: "updates/late.ko:\nupdates/extra.ko: kernel/base.ko\n",
            [`${data}/${release}/modules.alias`]: "alias pci:v00001AF4d00009999* late\n",
            [`${data}/${release}/updates/late.ko`]: "\x7fELF of module late.",
            [`${data}/${release}/updates/extra.ko`]: "\x7fELF of module extra.",
            "/etc/modules-load.d/x.conf": "extra\n",
            // The image has neither.
            [`/lib/modules/${release}/modules.dep`]: "kernel/base.ko:\n",
          },
        })
        yield* up(stages.node, machine, before)
        assert.deepStrictEqual(machine.kmsg, [])
        yield* up(stages.data, machine, before)
        assert.deepStrictEqual([...machine.modules.keys()], ["late", "base", "extra"])
      }),
  )
  it.effect("without a data partition, or without its directory, nothing is done and nothing said", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf({ modules: {} })
      assert.strictEqual(yield* outcome(stages.data, machine, before), "up")
      const none = Layer.merge(earlier(), Layer.succeed(DataPartition, { device: undefined }))
      assert.strictEqual(yield* outcome(stages.data, machine, none), "up")
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
})

describe("devices that come later", () => {
  const adding = (machine: TestMachine.TestMachine, name: string) => {
    machine.write({ [`/sys/bus/pci/devices/${name}/modalias`]: `${pci("1000sv0sd0bc02sc00i00")}\n` })
  }
  it.effect("get their driver within half a minute; disks at once, and no others, while the node boots", () =>
    Effect.gen(function* () {
      const machine = yield* machineOf({ modules: hardware.modules ?? {} })
      const services = yield* up(stages.boot, machine)
      yield* up(stages.disks, machine, Layer.merge(earlier(), Layer.succeedContext(services)))
      machine.write({
        "/sys/bus/pci/devices/0000:01:00.0/modalias": `${pci("1001sv0sd0bc01sc00i00")}\n`,
      })
      adding(machine, "0000:02:00.0")
      yield* TestClock.adjust("1 second")
      assert.isTrue(machine.modules.has("sd_mod"))
      assert.isFalse(machine.modules.has("nic"))
      yield* TestClock.adjust("2 minutes")
      const calls = machine.calls.length
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(machine.calls.length, calls, "it looks on for ever")
      yield* up(stages.devices, machine, Layer.merge(earlier(), Layer.succeed(Modules, { loaded: [] })))
      yield* TestClock.adjust("31 seconds")
      assert.isTrue(machine.modules.has("nic"))
    }),
  )
})
