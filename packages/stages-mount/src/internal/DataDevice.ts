/**
 * Which device is the data partition: by its type on any disk, or by what
 * `datapart=` names, with the rule among several and the bounds of waiting.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel } from "@kios/core/Kernel"
import { KernelError } from "@kios/core/KernelError"
import type * as Gpt from "../Gpt.ts"
import * as Disks from "./Disks.ts"
import * as LateDisks from "./LateDisks.ts"
import * as Superblock from "./Superblock.ts"

// How long `datapart=` is waited for: a disk behind a slow controller.
const NAMED_SECONDS = 30
// How long a data partition that nobody has named is waited for at most, and how long nothing may happen meanwhile.
const UNNAMED_SECONDS = 10
const QUIET_MILLIS = 500
const POLL_MILLIS = 100
// How long a disk may take to give its table.
const READ_SECONDS = 15

/** A device that may be the data partition. */
export interface Candidate {
  readonly device: string
  /** Undefined for a device that was named by its path. */
  readonly disk: Disks.Disk | undefined
  /** As the table has it; undefined for a whole disk, and for a partition of another kind of table. */
  readonly partition: Gpt.GptPartition | undefined
}

/** What has been read and told during one search, which looks at the same disks again and again. */
const makeSearch = Effect.gen(function* () {
  const kernel = yield* Kernel
  const tables = new Map<string, Disks.Table | undefined>()
  const told = new Set<string>()
  const warnOnce = (text: string) =>
    Effect.suspend(() => {
      if (told.has(text)) return Effect.void
      told.add(text)
      return Effect.logWarning(text)
    })

  const tableOf = Effect.fnUntraced(function* (disk: Disks.Disk) {
    const key = `${disk.name} ${disk.sectors}`
    if (tables.has(key)) return tables.get(key)
    const read = yield* Disks.readTable(disk).pipe(
      Effect.timeoutOrElse({
        duration: `${READ_SECONDS} seconds`,
        orElse: () =>
          Effect.fail(new KernelError({ syscall: "read", errno: "ETIMEDOUT", path: disk.device })),
      }),
      // One that fails is not asked again and again: each time may take it a minute. A node may be a moment late.
      Effect.tapError((error) =>
        Effect.sync(() => (error.errno === "ENOENT" ? undefined : tables.set(key, undefined))),
      ),
    )
    tables.set(key, Result.getOrUndefined(read))
    if (Result.isFailure(read)) {
      if (read.failure.damaged) yield* warnOnce(`${disk.device}: ${read.failure.reason}`)
      return undefined
    }
    const { primaryProblem, problems } = read.success
    if (primaryProblem !== undefined)
      yield* warnOnce(`${disk.device}: using the backup partition table: ${primaryProblem}`)
    if (problems.length > 0) {
      const more = problems.length > 4 ? ` and ${problems.length - 4} more` : ""
      yield* warnOnce(`${disk.device}: partitions left out: ${problems.slice(0, 4).join("; ")}${more}`)
    }
    return read.success
  })

  /** Disks with their tables; one that cannot be read is told and does not hide the others. */
  const disks = Effect.gen(function* () {
    const all = yield* Effect.forEach(
      yield* Disks.names,
      (name) =>
        Effect.flatMap(Disks.describe(name), (disk) =>
          Effect.map(tableOf(disk), (table) => [{ disk, table }] as const),
        ).pipe(
          Effect.catch((error) =>
            Effect.as(warnOnce(`/dev/${name} could not be read: ${error.message}`), [] as const),
          ),
        ),
      // A disk that takes its time does not hold up the others.
      { concurrency: 4 },
    )
    return all.flat()
  })

  /** The partitions of all tables. */
  const partitions = Effect.map(disks, (all) =>
    all.flatMap(({ disk, table }) =>
      (table?.partitions ?? []).map((partition): Candidate => ({
        device: `/dev/${Disks.partitionName(disk.name, partition.number)}`,
        disk,
        partition,
      })),
    ),
  )

  /** Everything that may have a filesystem: partitions of all kinds of tables, and disks as a whole. */
  const volumes = Effect.gen(function* () {
    const found = new Map<string, Candidate>()
    for (const { disk, table } of yield* disks) {
      if (disk.sectors > 0 && table === undefined)
        found.set(disk.device, { device: disk.device, disk, partition: undefined })
      const known = yield* Effect.catch(kernel.readDirectory(`/sys/block/${disk.name}`), () =>
        Effect.succeed([] as ReadonlyArray<string>),
      )
      for (const name of known)
        if (/^p?\d+$/u.test(name.slice(disk.name.length)) && name.startsWith(disk.name))
          found.set(`/dev/${name}`, { device: `/dev/${name}`, disk, partition: undefined })
      for (const partition of table?.partitions ?? []) {
        const device = `/dev/${Disks.partitionName(disk.name, partition.number)}`
        found.set(device, { device, disk, partition })
      }
    }
    return [...found.values()]
  })

  /** Those whose ext4 filesystem fits. */
  const byFilesystem = Effect.fnUntraced(function* (fits: (ext4: Superblock.Ext4) => boolean) {
    const found: Array<Candidate> = []
    for (const candidate of yield* volumes) {
      const superblock = yield* Effect.andThen(
        ensure(candidate),
        kernel.readAt(candidate.device, 1024, 1024),
      ).pipe(
        // A device node comes a moment after the table that tells of it.
        Effect.tapError((error) => (error.errno === "ENOENT" ? Effect.void : warnOnce(error.message))),
        Effect.catch(() => Effect.succeed(new Uint8Array(0))),
      )
      const ext4 = Superblock.parseExt4(superblock)
      if (ext4 !== undefined && fits(ext4)) found.push(candidate)
    }
    return found
  })

  const byPartition = (fits: (partition: Gpt.GptPartition) => boolean) =>
    Effect.map(partitions, (all) => all.filter(({ partition }) => partition !== undefined && fits(partition)))

  /** The devices that a `datapart=` value means. */
  const bySpec = (spec: string): Effect.Effect<ReadonlyArray<Candidate>, KernelError, Kernel> => {
    const value = spec.slice(spec.indexOf("=") + 1)
    const lower = value.toLowerCase()
    switch (spec.slice(0, spec.indexOf("="))) {
      case "PARTUUID":
        return byPartition(({ uuid }) => uuid === lower)
      case "PARTLABEL":
        return byPartition(({ label }) => label === value)
      case "UUID":
        return byFilesystem(({ uuid }) => uuid === lower)
      default:
        return byFilesystem(({ label }) => label === value)
    }
  }

  return { byPartition, bySpec, warnOnce }
})

/**
 * The rule among several: disks that cannot be taken out before those that can,
 * then the lowest PARTUUID, then the device's name: none of the first two
 * depends on the order in which the disks were found.
 */
const choose = Effect.fnUntraced(function* (candidates: ReadonlyArray<Candidate>) {
  const rank = ({ device, disk, partition }: Candidate) =>
    `${disk?.removable === true ? 1 : 0} ${partition?.uuid ?? ""} ${device}`
  const [chosen, ...others] = candidates.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1))
  if (chosen !== undefined && others.length > 0)
    yield* Effect.logWarning(
      `several data partitions: using ${chosen.device}, by the rule of fixed disks first, then the lowest PARTUUID, then the first device name, and not ${others
        .map(({ device }) => device)
        .join(", ")} (choose with datapart=)`,
    )
  return chosen
})

/** What gives the milliseconds since now. */
const stopwatch = Effect.gen(function* () {
  const kernel = yield* Kernel
  const began = yield* kernel.monotonic
  return Effect.map(kernel.monotonic, (now) => Number(now - began) / 1e6)
})

const pause = Effect.sleep(`${POLL_MILLIS} millis`)

/** The device of a `datapart=` value, waited for. */
const findNamed = Effect.fnUntraced(function* (spec: string) {
  const kernel = yield* Kernel
  const search = yield* makeSearch
  const elapsed = yield* stopwatch
  let told = false
  for (;;) {
    if (spec.startsWith("/dev/")) {
      if ((yield* kernel.stat(spec)) !== undefined)
        return { device: spec, disk: undefined, partition: undefined } satisfies Candidate
      // Of a table that the kernel has not taken.
      const named = yield* search.byPartition(() => true)
      const known = named.find(({ device }) => device === spec)
      if (known !== undefined) return known
    } else {
      const found = yield* search.bySpec(spec)
      if (found.length > 0) return yield* choose(found)
    }
    const waited = yield* elapsed
    if (waited >= NAMED_SECONDS * 1000) break
    if (!told && waited >= 1000) {
      told = true
      yield* Effect.logInfo(`waiting for datapart=${spec}`)
    }
    yield* pause
  }
  yield* Effect.logError(`datapart=${spec}: no such device within ${NAMED_SECONDS} s`)
  return undefined
})

/** The device by its partition type. It is waited for as long as disks may still appear. */
const findByType = Effect.fnUntraced(function* (type: string) {
  const search = yield* makeSearch
  let fingerprint: string | undefined
  let changed = 0
  const elapsed = yield* stopwatch
  for (;;) {
    const found = yield* search.byPartition((partition) => partition.type === type)
    if (found.length > 0) return yield* choose(found)
    const progress = yield* LateDisks.progress
    // Not so once it has been: a disk may have come after the search.
    if (!progress.possible && fingerprint === undefined) return undefined
    const waited = yield* elapsed
    if (progress.fingerprint !== fingerprint) changed = waited
    fingerprint = progress.fingerprint
    if (waited - changed >= QUIET_MILLIS && progress.pending === undefined) return undefined
    if (waited >= UNNAMED_SECONDS * 1000) {
      yield* Effect.logWarning(
        `disks still appear after ${UNNAMED_SECONDS} s (${progress.pending ?? "more are found"}): a data partition on them is not waited for; name it with datapart= for ${NAMED_SECONDS} s`,
      )
      return undefined
    }
    yield* pause
  }
})

/**
 * Finds the data partition: what `datapart=` names or, without it, a partition
 * of that type. Undefined when there is none, which has been told if it was named.
 */
export const find = Effect.fnUntraced(function* (type: string) {
  const { values } = yield* Cmdline
  if (values.datapart === "none") return undefined
  return yield* values.datapart === undefined ? findByType(type) : findNamed(values.datapart)
})

/** Sees to it that the kernel has the device. Its node may come a moment after sysfs tells of it. */
export const ensure = Effect.fnUntraced(function* ({
  device,
  disk,
  partition,
}: Candidate): Effect.fn.Return<void, KernelError, Kernel> {
  const kernel = yield* Kernel
  if (disk !== undefined && partition !== undefined) yield* Disks.ensurePartition(disk, partition)
  const elapsed = yield* stopwatch
  while ((yield* kernel.stat(device)) === undefined && (yield* elapsed) < 1000) yield* pause
})
