import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { type MachineOptions, qemuArguments, validate } from "../../src/vm/QemuArguments.ts"

const base: MachineOptions = { efi: "/x/kios,1.efi", boot: "kernel" }
const args = (options: Partial<MachineOptions>, host: object = {}) =>
  qemuArguments(
    { ...base, ...options },
    {
      accelerator: { _tag: "tcg", reason: "" },
      firmware: { code: "/f/code.fd", vars: "/d/vars.fd" },
      qmpSocket: "/d/a,b/qmp",
      portSockets: new Map((options.ports ?? []).map((name) => [name, `/d/${name}`])),
      forwards: options.forwards ?? [],
      ...host,
    },
  )
const after = (list: ReadonlyArray<string>, word: string) =>
  list.flatMap((w, i) => (w === word ? [list[i + 1] ?? ""] : []))
const devices = (list: ReadonlyArray<string>) =>
  after(list, "-device").map((json) => JSON.parse(json) as Record<string, unknown>)

it("describes the machine of the defaults", () => {
  const list = args({})
  assert.deepStrictEqual(after(list, "-accel"), ["tcg,thread=multi"])
  assert.deepStrictEqual(after(list, "-cpu"), ["max,-cx16"])
  assert.deepStrictEqual(after(list, "-m"), ["1024M"])
  assert.deepStrictEqual(after(list, "-kernel"), ["/x/kios,1.efi"])
  assert.deepStrictEqual(after(list, "-append"), []) // would replace the EFI's own command line
  assert.deepStrictEqual(after(list, "-chardev")[1], "socket,id=qmp,path=/d/a,,b/qmp,server=on,wait=off")
  assert.isFalse(list.includes("-netdev") || list.includes("-no-reboot"))
})

it("passes words to the kernel by SMBIOS, or directly", () => {
  assert.deepStrictEqual(after(args({ cmdline: "a=1,2 b" }), "-smbios"), [
    "type=11,value=io.systemd.stub.kernel-cmdline-extra=a=1,,2 b",
  ])
  const direct = qemuArguments(
    { efi: "bz", boot: "direct", initrd: "i", cmdline: "console=ttyS0" },
    { accelerator: { _tag: "icount" }, qmpSocket: "q", portSockets: new Map(), forwards: [] },
  )
  assert.deepStrictEqual(after(direct, "-append"), ["console=ttyS0"])
  assert.deepStrictEqual(after(direct, "-icount"), ["shift=1,sleep=off"])
  assert.deepStrictEqual(after(direct, "-machine"), ["q35"])
})

it("attaches disks to every bus, with any file name", () => {
  const list = args({
    disks: [
      { path: "/a,b c", format: "raw", serial: "one" },
      { path: "/n", format: "qcow2", bus: "nvme" },
      { path: "/s", format: "raw", bus: "scsi", readOnly: true },
      { path: "/h", format: "raw", bus: "ahci" },
    ],
  })
  const nodes = after(list, "-blockdev").map((json) => JSON.parse(json) as { file: { filename: string } })
  assert.deepStrictEqual(
    nodes.slice(2).map((node) => node.file.filename),
    ["/a,b c", "/n", "/s", "/h"],
  )
  assert.deepStrictEqual(
    devices(list)
      .map((d) => [d["driver"], d["drive"], d["serial"]])
      .filter((d) => d[0] !== "virtio-rng-pci"),
    [
      ["virtio-scsi-pci", undefined, undefined],
      ["virtio-blk-pci", "disk0", "one"],
      ["nvme", "disk1", "disk1"],
      ["scsi-hd", "disk2", undefined],
      ["ide-hd", "disk3", undefined],
    ],
  )
})

it("has a controller for each kind of SCSI disk, and any network adapters", () => {
  const list = args({
    disks: [
      { path: "/a", format: "raw", bus: "pvscsi" },
      { path: "/b", format: "raw", bus: "pvscsi" },
      { path: "/c", format: "raw", bus: "megasas" },
      { path: "/d", format: "raw", bus: "usb", serial: "stick" },
    ],
    nics: ["vmxnet3", "e1000e"],
  })
  assert.deepStrictEqual(
    devices(list)
      .map((d) => [d["driver"], d["bus"] ?? d["id"] ?? d["netdev"], d["serial"]])
      .filter((d) => d[0] !== "virtio-rng-pci"),
    [
      ["pvscsi", "pvscsi0", undefined],
      ["megasas", "megasas0", undefined],
      ["qemu-xhci", "usb0", undefined],
      ["scsi-hd", "pvscsi0.0", undefined],
      ["scsi-hd", "pvscsi0.0", undefined],
      ["scsi-hd", "megasas0.0", undefined],
      ["usb-storage", "usb0.0", "stick"],
      ["vmxnet3", "nic0", undefined],
      ["e1000e", "nic1", undefined],
    ],
  )
  assert.deepStrictEqual(after(list, "-netdev"), ["hubport,id=nic0,hubid=1", "hubport,id=nic1,hubid=2"])
})

it("boots from a disk, forwards ports, names serial ports", () => {
  const list = args(
    { boot: "disk", network: "user", forwards: [{ hostPort: 8080, guestPort: 80 }], ports: ["kios-probe"] },
    { espDisk: "/d/esp" },
  )
  assert.deepStrictEqual(after(list, "-kernel"), [])
  assert.deepStrictEqual(after(list, "-netdev"), ["user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80"])
  const found = devices(list)
  assert.strictEqual(found.find((d) => d["drive"] === "esp")?.["bootindex"], 0)
  assert.strictEqual(found.find((d) => d["driver"] === "virtserialport")?.["name"], "kios-probe")
})

it("is plugged into a network of the host's by a tap device", () => {
  const list = args({ network: { tap: "kios0" } })
  assert.deepStrictEqual(after(list, "-netdev"), ["tap,id=net0,ifname=kios0,script=no,downscript=no"])
  assert.strictEqual(devices(list).find((d) => d["netdev"] === "net0")?.["driver"], "virtio-net-pci")
})

it.effect("refuses what makes no machine, naming the option", () =>
  Effect.gen(function* () {
    yield* validate({ ...base, memoryMiB: 512, cpus: 4 })
    const bad: ReadonlyArray<[string, Partial<MachineOptions>]> = [
      ["memoryMiB", { memoryMiB: 0.5 }],
      ["cpus", { cpus: 0 }],
      ["cpus", { accelerator: "icount", cpus: 2 }],
      ["cmdline", { cmdline: "a\nb" }],
      ["initrd", { initrd: "x" }],
      ["initrd", { boot: "direct" }],
      ["forwards", { forwards: [{ hostPort: 0, guestPort: 80 }] }],
      ["forwards", { network: "user", forwards: [{ hostPort: 70000, guestPort: 80 }] }],
      [
        "forwards",
        {
          network: "user",
          forwards: [
            { hostPort: 9, guestPort: 1 },
            { hostPort: 9, guestPort: 2 },
          ],
        },
      ],
      ["forwards", { network: { tap: "kios0" }, forwards: [{ hostPort: 0, guestPort: 80 }] }],
      ["network", { network: { tap: "kios0,script=/tmp/x" } }],
      ["network", { network: { tap: "longer-than-a-name" } }],
      ["ports", { ports: ["a/b"] }],
      ["ports", { ports: ["a", "a"] }],
      ["disks", { disks: [{ path: "x", format: "raw", serial: "more than twenty chars" }] }],
    ]
    for (const [option, options] of bad) {
      const error = yield* Effect.flip(validate({ ...base, ...options }))
      assert.strictEqual(error.option, option, JSON.stringify(options))
    }
  }),
)

it("boots what is on the first disk, and logs what is written to one", () => {
  const list = qemuArguments(
    {
      boot: "image",
      disks: [
        { path: "/a", format: "qcow2", writeLog: "/l,1" },
        { path: "/b", format: "raw" },
      ],
    },
    {
      accelerator: { _tag: "tcg", reason: "" },
      firmware: { code: "/f/code.fd", vars: "/d/vars.fd" },
      qmpSocket: "q",
      portSockets: new Map(),
      forwards: [],
    },
  )
  assert.isFalse(list.includes("-kernel"))
  const blocks = devices(list).filter(({ driver }) => driver === "virtio-blk-pci")
  assert.deepStrictEqual(
    blocks.map(({ bootindex, discard }) => [bootindex, discard]),
    [
      [0, false],
      [undefined, undefined],
    ],
  )
  const logged = after(list, "-blockdev").map((json) => JSON.parse(json) as Record<string, unknown>)[2]
  assert.deepInclude(logged, {
    driver: "blklogwrites",
    "node-name": "disk0",
    log: { driver: "file", filename: "/l,1" },
  })
  assert.deepInclude(logged?.["file"], { driver: "qcow2" })
})

it("refuses a machine with nothing to boot from, or with two things", async () => {
  const refused = (options: MachineOptions) =>
    Effect.runPromise(
      Effect.flip(validate(options)).pipe(Effect.map(({ option, reason }) => `${option}: ${reason}`)),
    )
  assert.strictEqual(await refused({ boot: "kernel" }), 'efi: is given unless boot is "image"')
  assert.strictEqual(
    await refused({ boot: "image", efi: "/x", disks: [{ path: "/a", format: "raw" }] }),
    'efi: is given unless boot is "image"',
  )
  assert.strictEqual(await refused({ boot: "image" }), 'disks: there is none to boot from, with boot "image"')
})
