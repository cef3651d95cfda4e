/**
 * docs/files.md: every file, module, device and mount of an image, with the
 * reason why it is there.
 *
 * Files, images and modules are those of the recipe. The mounts are not listed
 * by hand: the mount stages run on an in-memory machine that has a data
 * partition, and what is mounted then is what is printed. A mount that nobody
 * gave a reason for is an error.
 */
import type { KernelError } from "@kios/core/KernelError"
import * as Pipeline from "@kios/core/Pipeline"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as DataPartition from "@kios/stages-mount/DataPartition"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import type { MountRow } from "@kios/stages-mount/MountTable"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import { Data, Effect, Layer } from "effect"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import type { ModuleGroup } from "../HardwareProfile.ts"
import { filesOf } from "../ContainerImages.ts"
import type { Layer as ImageLayer, LayerFile, Recipe, RecipeFile, RecipeImage } from "../ImageRecipe.ts"

/** A mount that is no row of a stage's table. */
export class MountWithoutReason extends Data.TaggedError("MountWithoutReason")<{
  readonly target: string
}> {
  override get message(): string {
    return `${this.target} is mounted and nothing says why: it is no row of the \`mounts\` of any stage that distro/src/docs/Files.ts knows`
  }
}

/** What the builder puts into every image, whatever its recipe; `Build.ts` has the same ones. */
export const builtIn: {
  readonly devices: ReadonlyArray<{ readonly path: string; readonly why: string }>
  readonly directories: ReadonlyArray<{ readonly path: string; readonly why: string }>
} = {
  devices: [
    { path: "/dev/console", why: "the kernel opens it as init's standard input and output" },
    { path: "/dev/kmsg", why: "init tells the console what it does before /dev is mounted" },
    { path: "/dev/null", why: "Node opens it for a standard stream that is closed" },
  ],
  directories: [
    {
      path: "/lib/kios/volume-plugins",
      why: "the kubelet executes what it finds in its volume plugin directory: this one is empty and read-only",
    },
    { path: "/lib/kios/etc/kubernetes/manifests", why: "static pods of the image" },
    { path: "/lib/kios/etc/cni/net.d", why: "containerd watches it for a network" },
    { path: "/lib/kios/images", why: "archives that are imported at boot" },
  ],
}

/** The tables of the stages that mount; a later row for the same target replaces an earlier one. */
const tables: ReadonlyArray<{ readonly mounts?: ReadonlyArray<MountRow> }> = [
  RootSwitch,
  PseudoFilesystems,
  EphemeralFilesystems,
  Cgroups,
  DataPartition,
  EtcOverlay,
]

const modules = KernelModules.stages({ boot: ["overlay"], node: [] })

/** The reference distro's stages that mount. */
const mounting = Pipeline.make([
  RootSwitch.stage,
  PseudoFilesystems.stage,
  CommandLine.stage,
  EphemeralFilesystems.stage,
  Cgroups.stage,
  modules.boot,
  DataPartition.stage,
  EtcOverlay.stage,
])

/** A mount of the running node. */
export interface DocumentedMount {
  readonly target: string
  readonly fstype: string
  readonly flags: ReadonlyArray<string>
  readonly options: string
  readonly why: string
  readonly reference: string
}

/**
 * The mounts of a node with a data partition, as the stages make them.
 * Fails with {@link MountWithoutReason}, or as the stages do.
 */
export const mounts: Effect.Effect<
  ReadonlyArray<DocumentedMount>,
  MountWithoutReason | Pipeline.StageFailed | KernelError
> = Effect.gen(function* () {
  const machine = TestMachine.make({
    // What the root switch binds and the overlay lies on.
    files: Object.fromEntries(
      [...Object.keys(RootSwitch.reference.keep), EtcOverlay.IMAGE_ETC].map((directory) => [
        `${directory}/.file`,
        "",
      ]),
    ),
    disks: {
      vda: TestDisks.gpt({ partitions: [{ type: DataPartition.PARTITION_TYPE, ext4: {} }] }),
    },
  })
  const reasons = new Map(
    tables
      .flatMap((table) => table.mounts ?? [])
      .filter(({ when }) => when !== "no-data-partition")
      .map((row) => [row.target, row]),
  )
  const found = yield* Layer.build(mounting.layer).pipe(
    Effect.andThen(Effect.sync(() => machine.mounts())),
    Effect.provide(TestMachine.platform(machine)),
    Effect.scoped,
  )
  return yield* Effect.forEach(found, ({ flags, fstype, options, target }) => {
    const row = reasons.get(target)
    if (row === undefined) return Effect.fail(new MountWithoutReason({ target }))
    const { reference, why } = row
    return Effect.succeed({ target, fstype, flags, options, why, reference })
  })
})

const distro = fileURLToPath(new URL("../../", import.meta.url))

/** Where a file comes from, for people: never a path of the build machine. */
const originOf = (from: RecipeFile["from"]): string => {
  switch (from._tag) {
    case "Init":
      return "sealed from this repository"
    case "Component":
      return `component ${from.component}`
    case "Local": {
      const inside = path.relative(distro, from.file)
      return inside.startsWith("..") ? path.basename(from.file) : `\`distro/${inside}\``
    }
  }
}

const code = (text: string): string => (text === "" ? "" : `\`${text}\``)
const mode = (bits: number): string => bits.toString(8).padStart(4, "0")

/** A table as the formatter would align it. */
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll("|", "\\|")))
  const widths = head.map((_, column) => Math.max(3, ...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`
  const [first = [], ...rest] = cells
  return [line(first), line(widths.map((width) => "-".repeat(width))), ...rest.map(line)].join("\n")
}

const fileTable = (files: ReadonlyArray<RecipeFile>): string =>
  table(
    ["file", "mode", "from", "why"],
    files.map((file) => [code(file.path), mode(file.mode), originOf(file.from), file.why]),
  )

const layerTable = (files: ReadonlyArray<LayerFile>): ReadonlyArray<string> => {
  const links = files.filter((file) => "symlink" in file)
  const rows = files.flatMap((file) =>
    "symlink" in file
      ? []
      : [
          "directory" in file
            ? [code(`/${file.path}/`), mode(file.mode), ""]
            : [code(`/${file.path}`), mode(file.mode), originOf(file.from)],
        ],
  )
  const targets = [...new Set(links.map((link) => link.symlink))]
  return [
    table(["file", "mode", "from"], rows),
    ...(links.length === 0
      ? []
      : [`And ${links.length} symbolic links to ${targets.map(code).join(", ")}, one for each command.`]),
  ]
}

const layerSection = (layer: ImageLayer): string =>
  [`### Layer ${code(layer.name)}`, `${layer.why}.`, ...layerTable(layer.files)].join("\n\n")

const imageSection = (image: RecipeImage): string => {
  const base = (image.base ?? []).map(({ name }) => code(name)).join(", ")
  return [
    `### \`${image.name}\``,
    `\`/lib/kios/images/${image.file}.tar\`: ${image.why}.${base === "" ? "" : ` On the layer ${base}.`}`,
    ...layerTable(image.files),
  ].join("\n\n")
}

const moments: Readonly<Record<ModuleGroup["loaded"], string>> = {
  boot: "before containerd, on every node",
  node: "before the kubelet, on every node",
  pods: "beside the kubelet, on every node",
  device: "when a device is there that they drive",
  stage: "by the stage that needs them",
  listed: "when listed",
}

const isIn = (directory: string) => (file: RecipeFile) => file.path.startsWith(directory)

/**
 * The page.
 *
 * @param recipe what is in the image
 *
 * @example
 * ```ts
 * import { filesMarkdown } from "@kios/distro/docs/Files"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const page = filesMarkdown(recipe)
 * ```
 */
export const filesMarkdown = Effect.fn("filesMarkdown")(function* (recipe: Recipe) {
  const etc = `${EtcOverlay.IMAGE_ETC}/`
  const files = filesOf(recipe)
  const configuration = files.filter(isIn(etc))
  const programs = files.filter(({ path: name }) => name === "/init" || name.startsWith("/bin/"))
  const rest = files.filter((file) => !configuration.includes(file) && !programs.includes(file))
  const mounted = yield* mounts
  return `${[
    "# Files",
    "Every file, module, device and mount of the image, and why it is there. Written by `npm run docs` from `distro/src/recipe.ts` and from the stages themselves; a test fails when this page is out of date. To change it, change those.",
    "## Programs",
    `${programs.length} executables. There is no other directory of programs, and no shell. \`/init\` is not in the root that the node keeps (\`root-switch\`).`,
    fileTable(programs),
    "## Libraries",
    fileTable(rest),
    "## Configuration",
    `The lower layer of the overlay on \`/etc\`: \`${etc}hosts\` is \`/etc/hosts\`.`,
    fileTable(configuration),
    "## Directories that are empty or filled by the build",
    table(
      ["directory", "why"],
      builtIn.directories.map((entry) => [code(entry.path), entry.why]),
    ),
    "## Devices",
    "In the image, for the time before `/dev` is mounted.",
    table(
      ["device", "why"],
      builtIn.devices.map((entry) => [code(entry.path), entry.why]),
    ),
    "## Kernel modules",
    `Below \`/lib/modules/RELEASE\`, signed by Debian (\`module.sig_enforce=1\`), with depmod's index files. What a module needs comes with it. These are those of the hardware profile \`${recipe.hardware.name}\`; [modules.md](modules.md) has the others, and what can be configured.`,
    table(
      ["group", "loaded", "why"],
      recipe.hardware.modules.map((group) => [group.name, moments[group.loaded], group.why]),
    ),
    ...recipe.hardware.modules.map((group) => `**${group.name}**: ${group.modules.map(code).join(", ")}.`),
    "## Container images",
    "Archives that are imported at boot, so that these pods need no registry. Images of one archive share layers.",
    ...[...new Set(recipe.images.flatMap(({ base }) => base ?? []))].map(layerSection),
    ...recipe.images.map(imageSection),
    "## Mounts",
    "In the order in which they are made, on a node with a data partition. `/` and everything below it is shared (`MS_SHARED`). What containerd and the kubelet mount for pods comes on top. What is not mounted, and why: [security.md](security.md#mounts).",
    table(
      ["mount point", "type", "flags", "options", "why", "as in"],
      mounted.map((mount) => [
        code(mount.target),
        mount.fstype,
        mount.flags.filter((flag) => flag !== "relatime").join(" "),
        code(mount.options),
        mount.why,
        mount.reference,
      ]),
    ),
    "Without a data partition, these instead of its own and of `/etc`:",
    table(
      ["mount point", "type", "flags", "options", "why", "as in"],
      EtcOverlay.mounts
        .filter(({ when }) => when === "no-data-partition")
        .map((row) => [
          code(row.target),
          row.fstype,
          ["rw", ...row.flags.map((flag) => flag.slice("MS_".length).toLowerCase())].join(" "),
          code(row.options ?? ""),
          row.why,
          row.reference,
        ]),
    ),
    "## Kernel command line",
    `\`\`\`\n${recipe.cmdline.join("\n")}\n\`\`\``,
  ].join("\n\n")}\n`
})
