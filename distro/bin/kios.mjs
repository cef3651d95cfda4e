#!/usr/bin/env node
// Runs the command on the Node that this project pins, whatever Node the
// machine has: from the sources in a checkout, from dist in a package.
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"

const require = createRequire(import.meta.url)
const pinned = () => {
  try {
    return require.resolve(`node-linux-${process.arch}/bin/node`)
  } catch {
    return process.execPath
  }
}
const source = fileURLToPath(new URL("../src/cli.ts", import.meta.url))
const built = fileURLToPath(new URL("../dist/cli.js", import.meta.url))
// npm packs src too; only a checkout has the workspace's sources beside it.
const checkout = existsSync(fileURLToPath(new URL("../../packages/core/src", import.meta.url)))
const args = checkout ? ["--conditions=@kios/source", source] : [built]

const child = spawn(pinned(), ["--no-warnings", ...args, ...process.argv.slice(2)], { stdio: "inherit" })
// The terminal sends Ctrl-C to both; the child cleans up and decides the exit code.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(signal, () => signal !== "SIGINT" && child.kill(signal))
child.on("exit", (code, signal) =>
  process.exit(signal === null ? (code ?? 1) : 128 + (signal === "SIGINT" ? 2 : 15)),
)
