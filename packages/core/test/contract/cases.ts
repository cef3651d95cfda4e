// All cases of the contract, in their order.
import "./mountCases.ts"
import "./mountTreeCases.ts"
import "./fileCases.ts"
import "./machineCases.ts"

export { all, type Case, Subject } from "./Case.ts"
