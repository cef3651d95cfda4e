/** PID 1 of the native bench: sealed as the reference distro's is, with the stages of `pipeline.ts`. */
import * as Init from "@kios/core/Init"
import { make } from "./pipeline.ts"

Init.start({ pipeline: make(), koffiPath: "/lib/kios/koffi.node" })
