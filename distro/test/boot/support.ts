/**
 * What the tests of the real EFI share: the file itself, data partitions with
 * manifests, and a machine in which a privileged pod runs their scripts.
 */
import { Context, Effect, Layer, Schedule, type Scope } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Build from "../../src/Build.ts"
import * as BuildContents from "../../src/cli/BuildContents.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { lockFile } from "../../src/components/LockFile.ts"
import * as DiskImage from "../../src/image/DiskImage.ts"
import type { Recipe } from "../../src/ImageRecipe.ts"
import { imageNames, recipe } from "../../src/recipe.ts"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { leanFile } from "./lean.ts"

const dist = (name: string) => fileURLToPath(new URL(`../../../dist/${name}`, import.meta.url))

/**
 * Words for a machine of which the speed and the hardening are not looked at:
 * without page-table isolation an emulated machine has a fifth of its time back.
 */
export const unhardened = "mitigations=off pti=off"

/** A directory that is gone with the scope. */
export const temporaryDirectory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-boot-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
)

const builders = Layer.mergeAll(ComponentStore.live, CommandRunner.layer)

/** Builds a variant of the distro into `directory`. */
export const buildVariant = (variant: Recipe, directory: string) =>
  Build.build({ recipe: variant, output: path.join(directory, "kios.efi") }).pipe(
    Effect.map(({ efi }) => efi),
    Effect.provide(builders),
  )

/** KIOS_EFI, else a file of dist/, which is built when it is not there; processes that find it missing at the same time build it once. */
const built = <E, R>(name: string, variant: Effect.Effect<Recipe, E, R>) =>
  Effect.gen(function* () {
    const given = process.env["KIOS_EFI"] ?? ""
    if (given !== "") {
      if (!fs.existsSync(given)) return yield* Effect.die(new Error(`KIOS_EFI: ${given} does not exist`))
      return path.resolve(given)
    }
    const file = dist(name)
    if (fs.existsSync(file)) return file
    fs.mkdirSync(path.dirname(file), { recursive: true })
    yield* lockFile(`${file}.lock`, name, "building it")
    if (fs.existsSync(file)) return file
    yield* Build.build({ recipe: yield* variant, output: file }).pipe(Effect.provide(builders))
    return file
  }).pipe(Effect.scoped)

/** The EFI under test, as it ships. */
export const efi = built("kios.efi", Effect.succeed(recipe))

/**
 * For tests of something else than the whole distro: without the system's pods,
 * which take an emulated machine half a minute of each boot, and packed for
 * speed instead of size. scripts/Suite.ts removes the one of an earlier run.
 */
export const leanEfi = built(
  leanFile,
  Effect.map(
    BuildContents.apply(recipe, { without: ["dhcp", "ntp", "node-logs"], image: [], manifest: [] }),
    (smaller): Recipe => ({ ...smaller, compression: { compression: "lz4", level: 9 } }),
  ),
)

/** A disk with a data partition whose static pod manifests are given by file name. */
export const dataDisk = Effect.fnUntraced(function* (
  directory: string,
  manifests: Readonly<Record<string, string>>,
  /** More files, by their path below /etc. */
  etc: Readonly<Record<string, string>> = {},
  /** More files, by their path on the partition. */
  files: ReadonlyArray<DiskImage.DataFile> = [],
) {
  const output = path.join(directory, "data.img")
  const info = yield* DiskImage.write({
    output,
    data: {
      sizeMiB: 384,
      files: [
        ...[
          ...Object.entries(manifests).map(([name, text]) => [`kubernetes/manifests/${name}`, text] as const),
          ...Object.entries(etc),
        ].map(([name, text]) => ({ path: `meta/etc/${name}`, bytes: Buffer.from(text) })),
        ...files,
      ],
    },
  })
  const partition = info.partitions.find(({ type }) => type === DiskImage.DATA_TYPE)
  if (partition === undefined) return yield* Effect.die(new Error("the disk has no data partition"))
  return { path: output, partition }
})

/** The image of the distro's own pods, which no registry is asked for. */
export const busybox = imageNames.busybox

const hostPaths = [
  { name: "host", path: "/", mountPath: "/host" },
  { name: "bin", path: "/bin", mountPath: "/host-bin" },
  { name: "lib", path: "/lib", mountPath: "/host-lib" },
]

/** A static pod of one container in the host's network, for there is no CNI. */
export const staticPod = (
  namespace: string,
  name: string,
  container: Readonly<Record<string, unknown>>,
  volumes?: ReadonlyArray<Readonly<Record<string, unknown>>>,
  terminationGracePeriodSeconds = 1,
): string =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace },
    spec: {
      hostNetwork: true,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds,
      containers: [{ name: "main", image: busybox, imagePullPolicy: "Never", ...container }],
      ...(volumes === undefined ? {} : { volumes }),
    },
  })

/** One with no privileges that runs `script` and sees {@link hostPaths}. */
export const shellPod = (namespace: string, name: string, script: string): string =>
  staticPod(
    namespace,
    name,
    {
      command: ["/bin/sh", "-c", script],
      volumeMounts: hostPaths.map(({ mountPath, name: volume }) => ({ name: volume, mountPath })),
    },
    hostPaths.map(({ name: volume, path: hostPath }) => ({
      name: volume,
      hostPath: { path: hostPath, type: "Directory" },
    })),
  )

/** Fails, with `what` and what was seen last, unless `check` succeeds in time: a minute and a half, if not said otherwise. */
export const eventually = <A, E, R>(
  what: string,
  check: Effect.Effect<A, E, R>,
  seconds = 90,
): Effect.Effect<A, Error, R> =>
  check.pipe(
    Effect.retry(Schedule.spaced("500 millis").pipe(Schedule.upTo({ duration: `${seconds} seconds` }))),
    Effect.mapError(
      (cause) => new Error(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`),
    ),
  )

/** {@link eventually} for assertions, which throw. */
export const eventuallyAssert = <A, E, R>(
  what: string,
  read: Effect.Effect<A, E, R>,
  assertion: (value: A) => void,
  seconds?: number,
): Effect.Effect<A, Error, R> =>
  eventually(
    what,
    Effect.flatMap(read, (value) =>
      Effect.try({
        try: () => {
          assertion(value)
          return value
        },
        catch: (cause) => cause as Error,
      }),
    ),
    seconds,
  )

/** A machine that is up, with the probe in it. */
export interface NodeShape {
  readonly machine: VmRun.Machine
  /** The disk with the data partition. */
  readonly data: { readonly path: string; readonly partition: DiskImage.Partition }
  /** The host's port that leads to port 8080 of the guest. */
  readonly helloPort: number
  /** Runs a script as root in the probe's pod (host's pids, network and, at /host, files); gives its output's lines. */
  readonly lines: (script: string, seconds?: number) => Effect.Effect<ReadonlyArray<string>, Error>
}

/** The one node that most tests look at: booting it is what costs time. */
export class Node extends Context.Service<Node, NodeShape>()("kios/test/Node") {}

/** What each line of a script says that must not fail. */
export const linesOf =
  (probe: Probe.Probe): NodeShape["lines"] =>
  (script, seconds = 60) =>
    probe
      .exec(script, { timeout: `${seconds} seconds` })
      .pipe(
        Effect.flatMap(({ exitCode, stderr, stdout, truncated }) =>
          exitCode === 0 && !truncated
            ? Effect.succeed(stdout.split("\n").filter((line) => line !== ""))
            : Effect.fail(new Error(`the script ended with ${exitCode}: ${stderr}\n${stdout}`)),
        ),
      )

/** What differs between the nodes of the tests. */
export interface NodeOptions {
  /** Static pods of the data partition, by file name. */
  readonly manifests?: Readonly<Record<string, string>>
  /** Those that have to run. */
  readonly pods: ReadonlyArray<string>
  /** RAM in MiB (default 1536). */
  readonly memoryMiB?: number
  /** The EFI and the command line are those that ship (default), or spare what the test does not look at. */
  readonly lean?: boolean
  readonly cmdline?: string
  /** QEMU's own network, with the sample pod's port forwarded (default), or none but what `extraArgs` bring. */
  readonly network?: "user" | "none"
  readonly extraArgs?: ReadonlyArray<string>
}

/** Boots the EFI with a data partition that carries the probe and `manifests`; up once all `pods` run. */
export const bootNode = Effect.fnUntraced(function* (options: NodeOptions) {
  const directory = yield* temporaryDirectory
  const data = yield* dataDisk(directory, {
    "kios-probe.json": Probe.probeManifest({ image: busybox }),
    ...options.manifests,
  })
  const lean = options.lean === true
  const machine = yield* VmRun.boot({
    efi: yield* lean ? leanEfi : efi,
    boot: "kernel",
    cmdline: options.cmdline ?? (lean ? unhardened : ""),
    memoryMiB: options.memoryMiB ?? 1536,
    ...(options.network === "none"
      ? {}
      : { network: "user", forwards: [{ hostPort: 0, guestPort: 8080 }] as const }),
    ports: [Probe.defaultProbePort],
    disks: [{ path: data.path, format: "raw" }],
    noReboot: true,
    extraArgs: options.extraArgs ?? [],
  })
  const verdict = yield* machine.until(
    { milestones: ["boot-complete"], pods: ["default/kios-probe", ...options.pods] },
    { timeout: "12 minutes" },
  )
  if (!verdict.reached) return yield* Effect.die(new Error(`${verdict.reason}\n${verdict.tail.join("\n")}`))
  const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready({ timeout: "3 minutes" })
  return { machine, data, helloPort: machine.vm.forwards[0]?.hostPort ?? 0, lines: linesOf(probe) }
})

export const nodeLayer = (options: NodeOptions) => Layer.effect(Node, bootNode(options))

/** A process that has an executable, which kernel threads and zombies have not. */
export interface GuestProcess {
  readonly pid: number
  readonly parent: number
  /** Its start: pid and start name one process for ever. */
  readonly start: string
  readonly exe: string
  /** Its name, at most 15 characters. */
  readonly name: string
  /** It is in init's own mount and pid namespaces. */
  readonly host: boolean
}

/** Reads proc_pid_stat(5): what follows the name in parentheses. */
const parseStat = (line: string) => {
  const end = line.lastIndexOf(")")
  const [, parent = "", ...rest] = line.slice(end + 2).split(" ")
  return {
    pid: Number.parseInt(line, 10),
    name: line.slice(line.indexOf("(") + 1, end),
    parent: Number(parent),
    start: rest[17] ?? "",
  }
}

/** The guest's processes at this moment, by three programs: each costs an emulated machine milliseconds. */
export const processes = Effect.gen(function* () {
  const { lines } = yield* Node
  const listed = yield* lines(
    "ls -ld /proc/[0-9]*/exe /proc/[0-9]*/ns/mnt /proc/[0-9]*/ns/pid 2>/dev/null; cat /proc/[0-9]*/stat 2>/dev/null; true",
  )
  const links = new Map(
    listed.flatMap((line): Array<[string, string]> => {
      const found = / (\/proc\/\d+\/\S+) -> (.+)$/.exec(line)
      return found === null ? [] : [[found[1] ?? "", found[2] ?? ""]]
    }),
  )
  const namespacesOf = (pid: number) =>
    ["mnt", "pid"].map((kind) => links.get(`/proc/${pid}/ns/${kind}`)).join()
  return listed
    .filter((line) => /^\d+ \(/.test(line))
    .map(parseStat)
    .flatMap((process): Array<GuestProcess> => {
      const exe = links.get(`/proc/${process.pid}/exe`)
      if (exe === undefined) return []
      return [{ ...process, exe, host: namespacesOf(process.pid) === namespacesOf(1) }]
    })
})

/** {@link processes} of the host itself. */
export const hostProcesses = Effect.map(processes, (all) => all.filter(({ host }) => host))

/** The page of the sample pod, asked for from outside; fails unless the answer is 200. */
export const hello = Effect.gen(function* () {
  const { helloPort } = yield* Node
  return yield* Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`http://127.0.0.1:${helloPort}/`, {
        signal: AbortSignal.any([signal, AbortSignal.timeout(5000)]),
      })
      const body = await response.text()
      if (response.status !== 200) throw new Error(`status ${response.status}: ${body}`)
      return body
    },
    catch: (cause) => cause as Error,
  })
})
