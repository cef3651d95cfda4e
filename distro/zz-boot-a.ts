import { Effect, Stream } from "effect"
import * as VmRun from "@kios/distro/vm/VmRun"
import * as Probe from "@kios/distro/vm/Probe"
import * as DiskImage from "@kios/distro/image/DiskImage"
import * as fs from "node:fs"
const d = "/tmp/tc/boot"
const image = "localhost/kios/busybox:1.37.0"
const bytes = (s: string) => Buffer.from(s)
const man = (n: string) => `meta/etc/kubernetes/manifests/${n}`
await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
  yield* DiskImage.write({ output: `${d}/data.img`, data: { sizeMiB: 256, files: [
    { path: man("probe.json"), bytes: bytes(Probe.probeManifest({ image })) },
    { path: man("second.yaml"), bytes: bytes(`apiVersion: v1\nkind: Pod\nmetadata: { name: second, namespace: apps }\nspec:\n  automountServiceAccountToken: false\n  hostNetwork: true\n  containers:\n    - name: main\n      image: ${image}\n      imagePullPolicy: Never\n      command: ["/bin/sleep", "1000000"]\n`) },
    { path: man("broken.yaml"), bytes: bytes("apiVersion: v1\nkind: Pod\nmetadata:\n  name: broken\n spec: [\n") },
  ] } })
  const m = yield* VmRun.boot({ efi: process.env.EFI ?? `${d}/kios.efi`, boot: "kernel", memoryMiB: 1536, network: "user", forwards: [{ hostPort: 0, guestPort: 8080 }], ports: ["kios-probe"], disks: [{ path: `${d}/data.img`, format: "raw" }], cmdline: "mitigations=off", console: { tee: `${d}/console.log` } })
  fs.writeFileSync(`${d}/a.json`, JSON.stringify({ port: m.vm.ports["kios-probe"], fw: m.vm.forwards, pid: m.vm.pid, qmp: m.vm.directory, me: process.pid }))
  const r = yield* m.until({ pods: ["default/hello", "kube-system/dhcp", "default/kios-probe", "apps/second"] }, { timeout: "5 minutes" })
  console.log(r.reached, r.reason, r.seconds)
  const e = yield* m.vm.exit
  console.log("exit", e)
})))
