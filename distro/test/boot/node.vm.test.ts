/**
 * One boot of the real EFI, with a data partition and a network, and what must
 * hold on a node that is up: as seen from outside and from a privileged pod.
 * The tests run in this order; the last one powers the machine off.
 */
import { layer } from "@effect/vitest"
import { soaking } from "../../../packages/core/test/support/Scale.ts"
import { crashes } from "./node/Crashes.ts"
import { host } from "./node/Host.ts"
import { mounts } from "./node/Mounts.ts"
import { brokenManifest, confinedScript, pods } from "./node/Pods.ts"
import { sealed } from "./node/Sealed.ts"
import { soak } from "./node/Soak.ts"
import { shutdown } from "./node/Shutdown.ts"
import { nodeLayer, shellPod } from "./support.ts"

// The soak is of init, its daemons and pods that run: without what emulation would take twice the time for.
const given = [
  "default/hello",
  ...(soaking ? [] : ["kube-system/dhcp", "kube-system/ntp", "kube-system/node-logs"]),
  "apps/second",
]

const Up = nodeLayer({
  manifests: {
    "second.json": shellPod("apps", "second", confinedScript),
    "broken.yaml": brokenManifest,
  },
  pods: given,
  lean: soaking,
})

layer(Up, { excludeTestServices: true, timeout: "10 minutes" })("a node that is up", (it) => {
  pods(it)
  // and the probe's own pod
  host(given.length + 1)(it)
  mounts(it)
  sealed(it)
  soak(it)
  crashes(it)
  shutdown(it)
})
