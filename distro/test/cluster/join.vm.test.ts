/**
 * One machine, two boots: a node that knows nobody joins a real cluster, lives
 * through the cluster's troubles, and is itself again after a reboot. The tests
 * run in this order.
 */
import { layer } from "@effect/vitest"
import { Layer } from "effect"
import { Cluster } from "./Cluster.ts"
import { Network } from "./Network.ts"
import { join } from "./node/Join.ts"
import { outage } from "./node/Outage.ts"
import { joinedPorts, standalonePorts } from "./node/Ports.ts"
import { reboot } from "./node/Reboot.ts"
import { Cloud, Marks, node } from "./support.ts"

const Up = node.pipe(
  Layer.provideMerge(Layer.mergeAll(Cluster.layer, Cloud.layer, Marks.layer)),
  Layer.provideMerge(Network.layer),
)

layer(Up, { excludeTestServices: true, timeout: "40 minutes" })("a node and its cluster", (it) => {
  standalonePorts(it)
  join(it)
  joinedPorts(it)
  outage(it)
  reboot(it)
})
