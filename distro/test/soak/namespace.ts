/**
 * Runs a program of this directory as PID 1 of a pid namespace: the real
 * `Init.start`, with the live kernel, and nothing else of a machine. The
 * program writes its findings to a file, because its end is the end of the
 * namespace.
 */
import { execFile, execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { seaConfig } from "../../src/image/Seal.ts"

/** What each program takes, besides what is its own. */
export interface Common {
  /** Absolute path of the compiled agent.c. */
  readonly agent: string
  /** A name that no other test's sockets have: abstract sockets are the network namespace's. */
  readonly name: string
  /** Where the findings go. */
  readonly result: string
}

// The kernel log and /run are the development machine's; init writes to both.
const prepare = 'mount --bind /dev/null /dev/kmsg && mount -t tmpfs none /run && exec "$@"'

/** Runs `program` (a file of this directory) and gives what it found, or fails with what it said. */
export const inNamespace = async <Options extends object, Result>(
  program: string,
  options: Options,
  deadlineMs: number,
): Promise<Result> => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-soak-"))
  try {
    const source = fileURLToPath(new URL("agent.c", import.meta.url))
    const agent = path.join(directory, "agent")
    execFileSync("gcc", ["-O1", "-Wall", "-Werror", "-o", agent, source])
    const result = path.join(directory, "result.json")
    const common: Common = { agent, name: path.basename(directory), result }
    const said = await new Promise<string>((resolve) => {
      execFile(
        "unshare",
        [
          ..."--mount --pid --fork --kill-child --mount-proc sh -c".split(" "),
          prepare,
          "sh",
          process.execPath,
          // What init ships with decides about its memory.
          ...seaConfig("", "").execArgv,
          ..."--expose-gc --conditions=@kios/source".split(" "),
          fileURLToPath(new URL(program, import.meta.url)),
          JSON.stringify({ ...common, ...options }),
        ],
        { timeout: deadlineMs, killSignal: "SIGKILL" },
        (error, stdout, stderr) => resolve(`${error?.message ?? ""}\n${stdout}\n${stderr}`),
      )
    })
    if (!fs.existsSync(result)) throw new Error(`${program} found nothing out: ${said}`)
    const found = JSON.parse(fs.readFileSync(result, "utf8")) as Result | { readonly broke: string }
    if (typeof found === "object" && found !== null && "broke" in found) throw new Error(found.broke)
    return found as Result
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}
