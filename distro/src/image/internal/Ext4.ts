/**
 * An ext4 file system inside a disk image, made without root: `mke2fs -d`
 * copies a staged directory, then `debugfs` sets what the staging cannot
 * (owner, mode of files that we may not read, times), so that neither who
 * builds nor when shows in the image.
 */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { DiskImageError, type ImageError, ToolFailed } from "../ImageError.ts"
import { HostTools } from "../HostTools.ts"
import { type Content, contentSize } from "./InputFile.ts"
import { attempt, io } from "./OutputFile.ts"
import { arrange } from "./Tree.ts"

export type Ext4Entry =
  | { readonly _tag: "Directory"; readonly path: string; readonly mode: number }
  | { readonly _tag: "File"; readonly path: string; readonly mode: number; readonly content: Content }
  | { readonly _tag: "Symlink"; readonly path: string; readonly target: string }

export interface Ext4Options {
  /** Directory to work in; the image is the file `image` in it. */
  readonly work: string
  readonly image: string
  /** For messages: the name of the disk image to be. */
  readonly output: string
  readonly offset: number
  readonly size: number
  readonly uuid: string
  readonly label: string
  /** Seconds since 1970, at least 1: e2fsprogs takes 0 for "now". */
  readonly time: number
  readonly entries: ReadonlyArray<Ext4Entry>
}

export const makeExt4 = (options: Ext4Options): Effect.Effect<void, ImageError> =>
  Effect.gen(function* () {
    const tools = yield* HostTools
    const { work, time, uuid } = options
    const entries = yield* attempt("stage the files of", options.output, () => stage(options))
    const env = {
      E2FSPROGS_FAKE_TIME: String(time),
      SOURCE_DATE_EPOCH: String(time),
      MKE2FS_CONFIG: "/dev/null",
    }
    yield* tools.run({
      tool: "mke2fs",
      cwd: work,
      env,
      args: [
        ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-L", options.label, "-U", uuid],
        ["-O", FEATURES.join(",")],
        ["-E", `offset=${options.offset},hash_seed=${uuid},${EXTENDED}`],
        options.size >= GROWING ? ["-J", "size=64"] : [],
        ["-d", "data", options.image, `${options.size / 1024}k`],
      ].flat(),
    })
    const debugfs = {
      tool: "debugfs",
      cwd: work,
      env,
      args: ["-w", "-f", "-", `${options.image}?offset=${options.offset}`],
      stdin: commands(entries, time),
    } as const
    const { stderr } = yield* tools.run(debugfs)
    // debugfs exits 0 whatever its commands did; only its banner is expected.
    const complaints = stderr.split("\n").filter((line) => line !== "" && !/^debugfs \d/u.test(line))
    if (complaints.length > 0) {
      const exit = "it complained about a command"
      return yield* new ToolFailed({
        tool: "debugfs",
        args: debugfs.args,
        exit,
        output: complaints.join("\n"),
      })
    }
  })

/**
 * Written out, and mke2fs.conf left unread, so that the image does not depend
 * on the build machine's defaults. All are in every kernel since 4.5.
 */
const FEATURES = [
  "none",
  "has_journal",
  "ext_attr",
  "resize_inode",
  "dir_index",
  "filetype",
  "extent",
  "64bit",
  "flex_bg",
  "sparse_super",
  "large_file",
  "huge_file",
  "dir_nlink",
  "extra_isize",
  "metadata_csum",
]

/**
 * From 1 GiB on a filesystem is taken for one that will grow to its disk
 * (`datapart.grow`): it gets the journal of a big one at once, for the size of a
 * journal cannot be changed while it is mounted. Block group descriptors need no
 * option: mke2fs reserves room for 1024 times the size, and beyond that the
 * kernel goes on with meta_bg (ext4_resize_fs, needs 64bit).
 */
const GROWING = 2 ** 30

/** No lazy initialisation: the kernel would write the tables after each first mount. */
const EXTENDED = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0"

const stage = async ({ entries, output, size, work }: Ext4Options): Promise<Array<Ext4Entry>> => {
  const fail = (reason: DiskImageError["reason"], detail: string): never => {
    throw new DiskImageError({ reason, path: output, detail })
  }
  const tree = arrange<Ext4Entry>(
    entries,
    (at) => ({ _tag: "Directory", path: at, mode: 0o755 }),
    (reason, at, detail) =>
      fail(
        reason === "DuplicatePath" ? "DuplicatePath" : "InvalidOption",
        `data partition: ${at}: ${detail}`,
      ),
  )
  let content = 0
  const root = path.join(work, "data")
  await io("create", root, () => fs.mkdir(root))
  for (const entry of tree) {
    // debugfs reads commands from a line, with names between quotes.
    if (/["\n]/u.test(entry.path))
      fail("InvalidOption", `data partition: ${entry.path}: a quote or newline in a name`)
    const target = path.join(root, entry.path)
    if (entry._tag === "Symlink") {
      // symlink(7): a path has at most 4095 bytes.
      const length = Buffer.byteLength(entry.target)
      if (length < 1 || length > 4095 || entry.target.includes("\0"))
        fail("InvalidOption", `data partition: ${entry.path}: "${entry.target}" is no target of a link`)
      await io("create", target, () => fs.symlink(entry.target, target))
      continue
    }
    if (!Number.isInteger(entry.mode) || entry.mode < 0 || entry.mode > 0o7777) {
      fail(
        "InvalidOption",
        `data partition: ${entry.path}: mode 0o${entry.mode.toString(8)} is not within 0 and 0o7777`,
      )
    }
    if (entry._tag === "Directory") {
      await io("create", target, () => fs.mkdir(target, 0o700))
      continue
    }
    const source = entry.content
    const bytes =
      (await contentSize(source)) ??
      fail("InvalidOption", `data partition: ${entry.path}: its source is not a regular file`)
    content += Math.ceil(bytes / 4096) * 4096
    if (content > size * 0.95) {
      const mib = Math.ceil(content / 0.9 / 2 ** 20) + 16
      fail(
        "TooSmall",
        `the data partition's files do not fit into ${size} bytes; make it at least ${mib} MiB`,
      )
    }
    if ("bytes" in source)
      await io("write", target, () => fs.writeFile(target, source.bytes, { mode: 0o600 }))
    else {
      await io("copy", source.path, () => fs.copyFile(source.path, target, fs.constants.COPYFILE_FICLONE))
      await io("change the mode of", target, () => fs.chmod(target, 0o600))
    }
  }
  return tree
}

const commands = (entries: ReadonlyArray<Ext4Entry>, time: number): string => {
  const lines = [
    ["/", "040755"],
    ["/lost+found", "040700"],
  ]
  for (const entry of entries) {
    const type = { Directory: 0o040000, File: 0o100000, Symlink: 0o120000 }[entry._tag]
    const mode = entry._tag === "Symlink" ? 0o777 : entry.mode
    lines.push([`/${entry.path}`, `0${(type | mode).toString(8)}`])
  }
  return lines
    .flatMap(([name, mode]) =>
      [`mode ${mode}`, "uid 0", "gid 0", `atime @${time}`, `mtime @${time}`, `ctime @${time}`].map(
        (field) => `set_inode_field "${name}" ${field}\n`,
      ),
    )
    .join("")
}
