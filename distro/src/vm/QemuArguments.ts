/**
 * QEMU's command line from a description of the machine. Pure: what is found on
 * the host comes in, words come out.
 */
import { Effect } from "effect"
import type { Accelerator, Firmware } from "./VmHost.ts"
import { VmOptionsInvalid } from "./VmError.ts"

/** A disk of the machine. */
export interface Disk {
  /** The image file; any name, commas too. */
  readonly path: string
  readonly format: "raw" | "qcow2"
  /** What the guest finds in `/sys/block/X/serial`; at most 20 characters. */
  readonly serial?: string
  /** The controller; `scsi` is virtio's. Default `virtio`. */
  readonly bus?: "virtio" | "nvme" | "ahci" | "usb" | ScsiBus
  readonly readOnly?: boolean
  /**
   * A file, made anew, to which every write and flush of the guest is logged in
   * the format of dm-log-writes (QEMU's driver `blklogwrites`).
   */
  readonly writeLog?: string
}

/** SCSI controllers: of virtio, VMware, and LSI (MegaRAID SAS). */
export type ScsiBus = keyof typeof scsiControllers

const scsiControllers = { scsi: "virtio-scsi-pci", pvscsi: "pvscsi", megasas: "megasas" } as const

/** Network adapters, by QEMU's names. */
export type NicModel = "virtio-net-pci" | "vmxnet3" | "e1000" | "e1000e" | "rtl8139" | "pcnet" | "i82550"

/** A TCP port of 127.0.0.1 that leads to one of the guest. */
export interface Forward {
  /** 0 chooses a free one. */
  readonly hostPort: number
  readonly guestPort: number
}

/** Describes a machine. */
export interface MachineOptions {
  /** The EFI to boot; with `boot: "direct"` a kernel (bzImage); with `boot: "image"` none. */
  readonly efi?: string
  /**
   * `kernel`: the firmware gets the EFI from QEMU, no disk. `disk`: the EFI lies
   * on a GPT/FAT32 disk as on real machines. `image`: the firmware boots what it
   * finds on the first of `disks`, such as `kios image` writes. `direct`: no
   * firmware, QEMU loads the kernel `efi` with `initrd` (for tests of the
   * kernel's side).
   */
  readonly boot: "kernel" | "disk" | "image" | "direct"
  /** Only with `boot: "direct"`. */
  readonly initrd?: string
  readonly disks?: ReadonlyArray<Disk>
  /** RAM in MiB. Default 1024. */
  readonly memoryMiB?: number
  /** Virtual CPUs. Default 2. */
  readonly cpus?: number
  /**
   * Words added to the kernel's command line. The EFI stays as it is: systemd-stub
   * (>= 254) takes them from an SMBIOS string unless Secure Boot is on.
   */
  readonly cmdline?: string
  readonly forwards?: ReadonlyArray<Forward>
  /**
   * `user`: NAT by QEMU, 10.0.2.0/24 with DHCP. A tap device that exists: a cable
   * to a network of one's own, which must serve DHCP. Default `none`.
   */
  readonly network?: "user" | "none" | { readonly tap: string }
  /** Further network adapters, each with a cable that leads nowhere. */
  readonly nics?: ReadonlyArray<NicModel>
  /** Names of virtio-serial ports; the guest finds them in `/sys/class/virtio-ports/X/name`. */
  readonly ports?: ReadonlyArray<string>
  /** Default `auto`: KVM where it really works, else TCG. */
  readonly accelerator?: "auto" | "kvm" | "tcg" | "icount"
  /** A reset of the guest ends QEMU. Default false. */
  readonly noReboot?: boolean
  /** Adds a display adapter, for `screendump`. Default false: a serial console only. */
  readonly display?: boolean
  /** More words for QEMU, last. */
  readonly extraArgs?: ReadonlyArray<string>
}

/** What the host adds to {@link MachineOptions}. */
export interface HostSide {
  readonly accelerator: Accelerator
  /** Absent with `boot: "direct"`. */
  readonly firmware?: Firmware
  /** The ESP disk of `boot: "disk"`. */
  readonly espDisk?: string
  readonly qmpSocket: string
  /** Name of a port to the path of its socket. */
  readonly portSockets: ReadonlyMap<string, string>
  /** With every `hostPort` chosen. */
  readonly forwards: ReadonlyArray<Forward>
}

/** QEMU's own quoting: a comma in a value is written twice. */
export const quote = (value: string): string => value.replaceAll(",", ",,")

const whole = (value: number, low: number, high: number) =>
  Number.isInteger(value) && value >= low && value <= high

/** What is wrong with the options, or `undefined`. */
const flaw = (options: MachineOptions): readonly [option: string, reason: string] | undefined => {
  const memory = options.memoryMiB ?? 1024
  if (!whole(memory, 32, 1 << 20)) return ["memoryMiB", `${memory} is no whole number of MiB from 32 up`]
  const cpus = options.cpus ?? 2
  if (!whole(cpus, 1, 255)) return ["cpus", `${cpus} is no whole number from 1 to 255`]
  if (options.accelerator === "icount" && cpus !== 1)
    return ["cpus", "the accelerator icount runs one CPU only"]
  if (/[^\x20-\x7e]/.test(options.cmdline ?? ""))
    return ["cmdline", "only printable ASCII characters can be passed to the kernel"]
  if ((options.boot === "direct") !== (options.initrd !== undefined))
    return ["initrd", 'is given if and only if boot is "direct"']
  if ((options.boot === "image") !== (options.efi === undefined))
    return ["efi", 'is given unless boot is "image"']
  if (options.boot === "image" && (options.disks ?? []).length === 0)
    return ["disks", 'there is none to boot from, with boot "image"']
  if ((options.forwards ?? []).length > 0 && options.network !== "user")
    return ["forwards", 'ports can be forwarded with network "user" only']
  // IFNAMSIZ is 16 with its end.
  if (typeof options.network === "object" && !/^[a-z][a-z0-9-]{0,14}$/.test(options.network.tap))
    return ["network", `"${options.network.tap}" is no name of a tap device`]
  const hostPorts = new Set<number>()
  for (const { hostPort, guestPort } of options.forwards ?? []) {
    if (!whole(hostPort, 0, 65_535)) return ["forwards", `${hostPort} is no port`]
    if (!whole(guestPort, 1, 65_535)) return ["forwards", `${guestPort} is no port of the guest`]
    if (hostPort !== 0 && hostPorts.has(hostPort)) return ["forwards", `port ${hostPort} is forwarded twice`]
    hostPorts.add(hostPort)
  }
  const names = new Set<string>()
  for (const port of options.ports ?? []) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(port))
      return ["ports", `"${port}" is no name (letters, digits, ".", "_" and "-")`]
    if (names.has(port)) return ["ports", `"${port}" is given twice`]
    names.add(port)
  }
  const serials = new Set<string>()
  for (const { path, serial } of options.disks ?? []) {
    if (serial === undefined) continue
    if (!/^[\x21-\x7e]{1,20}$/.test(serial))
      return ["disks", `the serial "${serial}" of ${path} is not 1 to 20 printable characters`]
    if (serials.has(serial)) return ["disks", `two disks have the serial "${serial}"`]
    serials.add(serial)
  }
  return undefined
}

/** Checks what needs no look at the host. Fails with `VmOptionsInvalid`. */
export const validate = (options: MachineOptions): Effect.Effect<void, VmOptionsInvalid> => {
  const found = flaw(options)
  return found === undefined
    ? Effect.void
    : Effect.fail(new VmOptionsInvalid({ option: found[0], reason: found[1] }))
}

const acceleration = (accelerator: Accelerator): ReadonlyArray<string> => {
  switch (accelerator._tag) {
    case "kvm":
      return ["-accel", "kvm", "-cpu", "host"]
    // Without -cx16, QEMU 7.2 double-faults in about half of the boots of 6.12 with a large initrd.
    case "tcg":
      return ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"]
    case "icount":
      return ["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-cpu", "max,-cx16"]
  }
}

const imageNode = (format: string, path: string, readOnly: boolean) => ({
  driver: format,
  "read-only": readOnly,
  file: { driver: "file", filename: path, "read-only": readOnly },
})

const blockdev = (node: string, format: string, path: string, readOnly: boolean): Array<string> => [
  "-blockdev",
  JSON.stringify({ "node-name": node, ...imageNode(format, path, readOnly) }),
]

/** The disk's image, below a filter that logs what is written if that is asked for. */
const backendOf = (node: string, disk: Disk): Array<string> =>
  disk.writeLog === undefined
    ? blockdev(node, disk.format, disk.path, disk.readOnly ?? false)
    : [
        "-blockdev",
        JSON.stringify({
          driver: "blklogwrites",
          "node-name": node,
          file: imageNode(disk.format, disk.path, disk.readOnly ?? false),
          log: { driver: "file", filename: disk.writeLog },
        }),
      ]

// No option ROM: the firmware does not try to boot from the network, and no package has to bring it.
const nic = { driver: "virtio-net-pci", netdev: "net0", romfile: "" }

const device = (properties: Record<string, unknown>): Array<string> => ["-device", JSON.stringify(properties)]

const disks = (list: ReadonlyArray<Disk>, bootable: boolean): Array<string> => {
  const buses = new Set(list.map((disk) => disk.bus))
  const controllers = Object.entries(scsiControllers).flatMap(([bus, driver]) =>
    buses.has(bus as ScsiBus) ? device({ driver, id: `${bus}0` }) : [],
  )
  const usb = buses.has("usb") ? device({ driver: "qemu-xhci", id: "usb0" }) : []
  let ahciPort = 0
  return [...controllers, ...usb].concat(
    list.flatMap((disk, index) => {
      const node = `disk${index}`
      const common = {
        drive: node,
        ...(disk.serial === undefined ? {} : { serial: disk.serial }),
        ...(bootable && index === 0 ? { bootindex: 0 } : {}),
      }
      const backend = backendOf(node, disk)
      switch (disk.bus ?? "virtio") {
        case "virtio":
          return [
            ...backend,
            ...device({
              driver: "virtio-blk-pci",
              ...common,
              // A log of plain writes: all that happens to the disk is in it with its bytes.
              ...(disk.writeLog === undefined ? {} : { discard: false, "write-zeroes": false }),
            }),
          ]
        case "nvme": // has no default serial and does not start without one
          return [...backend, ...device({ driver: "nvme", serial: node, ...common })]
        case "scsi":
        case "pvscsi":
        case "megasas":
          return [...backend, ...device({ driver: "scsi-hd", bus: `${disk.bus}0.0`, ...common })]
        case "usb":
          return [...backend, ...device({ driver: "usb-storage", bus: "usb0.0", ...common })]
        case "ahci": // the controller that is part of q35
          return [...backend, ...device({ driver: "ide-hd", bus: `ide.${ahciPort++}`, ...common })]
      }
    }),
  )
}

/**
 * The words after QEMU's name. The machine is created stopped (`-S`), so that
 * the monitor misses nothing and power-on is a known moment; the serial console
 * is on standard output.
 */
export const qemuArguments = (options: MachineOptions, host: HostSide): ReadonlyArray<string> => {
  const { firmware } = host
  const cmdline = options.cmdline ?? ""
  const socket = (id: string, path: string) => [
    "-chardev",
    `socket,id=${id},path=${quote(path)},server=on,wait=off`,
  ]
  return [
    "-name",
    "kios",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-S",
    "-machine",
    firmware === undefined ? "q35" : "q35,pflash0=firmware-code,pflash1=firmware-vars",
    ...acceleration(host.accelerator),
    "-smp",
    String(options.cpus ?? 2),
    "-m",
    `${options.memoryMiB ?? 1024}M`,
    ...(options.noReboot === true ? ["-no-reboot"] : []),
    ...(firmware === undefined
      ? []
      : [
          ...blockdev("firmware-code", "raw", firmware.code, true),
          ...blockdev("firmware-vars", "raw", firmware.vars, false),
        ]),
    "-chardev",
    "stdio,id=console,signal=off",
    "-serial",
    "chardev:console",
    ...socket("qmp", host.qmpSocket),
    "-mon",
    "chardev=qmp,mode=control",
    "-object",
    "rng-random,id=rng,filename=/dev/urandom",
    ...device({ driver: "virtio-rng-pci", rng: "rng" }),
    ...(options.display === true ? device({ driver: "VGA" }) : []),
    ...(options.boot === "disk" || options.efi === undefined ? [] : ["-kernel", options.efi]),
    ...(options.boot === "direct" ? ["-initrd", options.initrd ?? "", "-append", cmdline] : []),
    ...(options.boot !== "direct" && cmdline.trim() !== ""
      ? ["-smbios", `type=11,value=io.systemd.stub.kernel-cmdline-extra=${quote(cmdline.trim())}`]
      : []),
    ...(host.espDisk === undefined
      ? []
      : [
          ...blockdev("esp", "raw", host.espDisk, false),
          ...device({ driver: "virtio-blk-pci", drive: "esp", serial: "kios-esp", bootindex: 0 }),
        ]),
    ...disks(options.disks ?? [], options.boot === "image"),
    ...(options.network === "user"
      ? [
          "-netdev",
          [
            "user,id=net0",
            ...host.forwards.map((f) => `hostfwd=tcp:127.0.0.1:${f.hostPort}-:${f.guestPort}`),
          ].join(","),
          ...device(nic),
        ]
      : []),
    ...(typeof options.network === "object"
      ? ["-netdev", `tap,id=net0,ifname=${options.network.tap},script=no,downscript=no`, ...device(nic)]
      : []),
    ...(options.nics ?? []).flatMap((driver, index) => [
      "-netdev",
      `hubport,id=nic${index},hubid=${index + 1}`,
      ...device({ driver, netdev: `nic${index}`, romfile: "" }),
    ]),
    ...(host.portSockets.size > 0 ? device({ driver: "virtio-serial-pci", id: "ports" }) : []),
    ...[...host.portSockets].flatMap(([name, path], index) => [
      ...socket(`port${index}`, path),
      ...device({ driver: "virtserialport", bus: "ports.0", chardev: `port${index}`, name }),
    ]),
    ...(options.extraArgs ?? []),
  ]
}
