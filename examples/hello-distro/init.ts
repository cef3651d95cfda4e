/** PID 1 of this distro. */
import * as Init from "@kios/core/Init"
import { pipeline } from "./pipeline.ts"

Init.start({ pipeline, koffiPath: "/lib/kios/koffi.node" })
