/**
 * Disks and network adapters of many kinds in one machine, and no list of
 * drivers anywhere: each must come up by its modalias, on either kernel.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { generic } from "../../src/profiles.ts"
import { recipe } from "../../src/recipe.ts"
import * as Probe from "../../src/vm/Probe.ts"
import type { Disk, NicModel } from "../../src/vm/QemuArguments.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import {
  buildVariant,
  busybox,
  dataDisk,
  eventually,
  leanEfi,
  temporaryDirectory,
  unhardened,
} from "./support.ts"

type Bus = NonNullable<Disk["bus"]>

const MiB = 1024 * 1024

/**
 * The driver of each disk, by its size, and of each network interface: the nearest PCI function above it has one.
 * A disk that is on its way is waited for by the caller.
 */
const look = String.raw`
pci() { readlink -f "$1" | grep -o '[0-9a-f]\{4\}:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]\.[0-9a-f]' | tail -n 1; }
driver() { basename "$(readlink "/sys/bus/pci/devices/$(pci "$1")/driver")"; }
for disk in /sys/block/*; do
  [ -e "$disk/device" ] && echo "disk $(cat $disk/size) $(driver $disk)"
done
for nic in /sys/class/net/*; do
  [ -e "$nic/device" ] && echo "nic $(driver $nic)"
done
true`

interface Found {
  readonly disks: ReadonlyMap<number, string>
  readonly nics: ReadonlyArray<string>
}

/** Boots with a disk on each bus, the data partition on the first, and with all adapters. */
const boot = Effect.fnUntraced(function* (
  image: string,
  buses: readonly [Bus, ...ReadonlyArray<Bus>],
  nics: ReadonlyArray<NicModel>,
  expected: Found,
) {
  const directory = yield* temporaryDirectory
  const [first, ...rest] = buses
  const data = yield* dataDisk(directory, {
    "kios-probe.json": Probe.probeManifest({ image: busybox }),
  })
  const disks = rest.map((bus, index): Disk => {
    const file = path.join(directory, `${bus}.img`)
    fs.writeFileSync(file, "")
    // Its size tells which one it is.
    fs.truncateSync(file, (index + 1) * MiB)
    return { path: file, format: "raw", bus }
  })
  const machine = yield* VmRun.boot({
    efi: image,
    boot: "kernel",
    cmdline: unhardened,
    memoryMiB: 1536,
    network: "user",
    nics,
    ports: [Probe.defaultProbePort],
    disks: [{ path: data.path, format: "raw", bus: first }, ...disks],
    noReboot: true,
  })
  const verdict = yield* machine.until(
    { milestones: ["boot-complete"], pods: ["default/kios-probe"] },
    { timeout: "8 minutes" },
  )
  // That the probe runs at all shows that the data partition, from which it came, was found.
  assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
  const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready()
  const dataSectors = fs.statSync(data.path).size / 512
  yield* eventually(
    "the drivers of disks and network adapters",
    Effect.gen(function* () {
      const { exitCode, stderr, stdout } = yield* probe.exec(look, { timeout: "60 seconds" })
      const lines = stdout.split("\n").map((line) => line.split(" "))
      const found = {
        disks: lines
          .flatMap(([kind, size, driver]) => (kind === "disk" ? [`${size} ${driver}`] : []))
          .toSorted(),
        nics: lines.flatMap(([kind, driver]) => (kind === "nic" ? [driver] : [])).toSorted(),
      }
      yield* Effect.try({
        try: () => {
          assert.strictEqual(exitCode, 0, stderr)
          assert.deepStrictEqual(found, {
            disks: [...expected.disks]
              .map(([mib, driver]) => `${mib === 0 ? dataSectors : (mib * MiB) / 512} ${driver}`)
              .toSorted(),
            nics: expected.nics.toSorted(),
          })
        },
        catch: (cause) => cause as Error,
      })
    }),
  )
  const console = machine.events().flatMap((event) => ("message" in event ? [event.message] : []))
  assert.deepStrictEqual(
    console.filter((message) => /has no driver|was not loaded|is not in \/lib\/modules/u.test(message)),
    [],
  )
  return probe
})

it.live("cloud: virtio, VMware, SCSI, NVMe and AHCI disks and both adapters come up by modalias", () =>
  Effect.gen(function* () {
    const probe = yield* boot(
      yield* leanEfi,
      ["ahci", "virtio", "scsi", "nvme", "ahci", "pvscsi"],
      ["vmxnet3", "virtio-net-pci"],
      {
        disks: new Map([
          [0, "ahci"],
          [1, "virtio-pci"],
          [2, "virtio-pci"],
          [3, "nvme"],
          [4, "ahci"],
          [5, "vmw_pvscsi"],
        ]),
        // The first is that of the test's own network.
        nics: ["virtio-pci", "vmxnet3", "virtio-pci"],
      },
    )
    const run = (script: string) =>
      Effect.map(probe.exec(script, { timeout: "60 seconds" }), ({ stdout }) =>
        stdout.split("\n").filter((line) => line !== ""),
      )
    // The kernel asks nobody for modules: what needs them finds them loaded.
    assert.deepStrictEqual(yield* run("wc -c </proc/sys/kernel/modprobe; cat /proc/sys/kernel/modprobe"), [
      "1",
    ])
    // What matched no device stays out.
    assert.deepStrictEqual(
      yield* run(
        "cut -d' ' -f1 /proc/modules | grep -E '^(xen_blkfront|hv_netvsc|ena|wireguard|nfs|ip_vs)$'",
      ),
      [],
    )
    yield* eventually(
      "what kube-proxy takes for granted",
      Effect.flatMap(
        run(
          "cut -d' ' -f1 /proc/modules | grep -c -E '^(xt_MASQUERADE|nft_compat|iptable_nat|vxlan|nft_masq)$'",
        ),
        ([count]) => (count === "5" ? Effect.void : Effect.fail(new Error(`${count} of 5 are loaded`))),
      ),
    )
  }).pipe(Effect.scoped),
)

it.live("generic: what cloud has, MegaRAID and USB disks, and adapters of physical machines", () =>
  Effect.gen(function* () {
    yield* boot(
      yield* buildVariant({ ...recipe, hardware: generic }, yield* temporaryDirectory),
      ["nvme", "virtio", "scsi", "ahci", "megasas", "usb"],
      ["vmxnet3", "e1000e", "e1000", "rtl8139", "pcnet", "i82550"],
      {
        disks: new Map([
          [0, "nvme"],
          [1, "virtio-pci"],
          [2, "virtio-pci"],
          [3, "ahci"],
          [4, "megaraid_sas"],
          [5, "xhci_hcd"],
        ]),
        nics: ["virtio-pci", "vmxnet3", "e1000e", "e1000", "8139cp", "pcnet32", "e100"],
      },
    )
  }).pipe(Effect.scoped),
)
