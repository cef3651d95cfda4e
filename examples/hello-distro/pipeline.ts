/**
 * A distro that is not ours: the reference distro's stages with one left out
 * (machine-id), one replaced (sysctl) and one added (greeting).
 */
import * as Pipeline from "@kios/core/Pipeline"
import { pipeline as reference } from "@kios/distro/pipeline"
import * as Sysctl from "@kios/stages-runtime/Sysctl"
import * as Greeting from "./Greeting.ts"

// Nothing on this node asks for /etc/machine-id.
const anonymous = Pipeline.without(reference, "machine-id")

const swapless = Pipeline.replace(
  anonymous,
  "sysctl",
  Sysctl.make({ ...Sysctl.node, ...Sysctl.hardening, "vm.swappiness": "0" }),
)

export const pipeline = Pipeline.append(swapless, Greeting.stage)
