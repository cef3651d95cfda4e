// All cases of the contract, in their order.
import * as cgroup from "./cgroupCases.ts"
import * as death from "./deathCases.ts"
import * as disk from "./diskCases.ts"
import * as file from "./fileCases.ts"
import * as machine from "./machineCases.ts"
import * as module from "./moduleCases.ts"
import * as mount from "./mountCases.ts"
import * as mountTree from "./mountTreeCases.ts"
import * as rootSwitch from "./rootSwitchCases.ts"
import * as socket from "./socketCases.ts"
import type { Case } from "./Case.ts"

export const all: ReadonlyArray<Case> = [
  ...mount.cases,
  ...mountTree.cases,
  ...file.cases,
  ...machine.cases,
  ...socket.cases,
  ...module.cases,
  ...death.cases,
  ...disk.cases,
  ...cgroup.cases,
  // The last: there is no way back to the old root.
  ...rootSwitch.cases,
]

export { type Case, Subject } from "./Case.ts"
