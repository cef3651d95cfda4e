// The programs that cases start where there is a shell, `sleep` and `seq`.
import type { Subject } from "./cases.ts"
import { connectByNode } from "./clients.ts"

const sh = (script: string) => ({ command: "/bin/sh", args: ["-c", script] })

/** @param forever a program that runs for ever, whatever name its file has */
export const shellPrograms = (forever: Subject["Service"]["forever"]): Omit<Subject["Service"], "dir"> => ({
  exits: (code) => sh(`exit ${code}`),
  forever,
  // An ignored signal stays ignored across exec.
  stubborn: sh(`trap "" TERM; echo ready; exec sleep 1000`),
  prints: (lines) => sh(lines.map((line) => `echo "${line}"`).join("; ")),
  leaves: (children) => sh(`for i in $(seq ${children}); do (sleep 0.01; exit 3) & done; exit 0`),
  connect: connectByNode,
  pid: process.pid,
})
