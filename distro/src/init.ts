/**
 * PID 1 of the reference distro: this file, bundled and sealed, is `/init`.
 */
import * as Init from "@kios/core/Init"
import { pipeline } from "./pipeline.ts"

Init.start({ pipeline, koffiPath: "/lib/kios/koffi.node" })
