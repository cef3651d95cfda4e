/**
 * An overlay over in-memory directories; Documentation/filesystems/overlayfs.rst.
 */
import { Directory, type Inode, RegularFile, SpecialFile } from "./TestFiles.ts"

// What stands in the upper layer for a name that was removed: a 0/0 character device.
class Whiteout extends SpecialFile {
  constructor() {
    super("character", undefined, 0)
  }
}

/** A lower file seen through an overlay: the first write copies it up. */
class LowerFile extends RegularFile {
  readonly #above: OverlayDirectory
  constructor(below: RegularFile, above: OverlayDirectory) {
    super(below.read(), below.mode)
    this.program = below.program
    this.#above = above
  }
  override write(content: string | Uint8Array): void {
    super.write(content)
    const copy = this.#above.layer().add(this.name, new RegularFile(this.read(), this.mode))
    copy.program = this.program
  }
}

/** A directory of an overlay: names of the upper layer hide those of the lower ones. */
export class OverlayDirectory extends Directory {
  #upper: Directory | undefined
  readonly #lower: ReadonlyArray<Directory>
  readonly #over: OverlayDirectory | undefined
  // Mounts are found by the identity of what they are mounted on.
  readonly #seen = new Map<string, { readonly inode: Inode; readonly view: Inode }>()

  /** @param upper undefined: the overlay is read-only, or this directory is not copied up yet */
  constructor(upper: Directory | undefined, lower: ReadonlyArray<Directory>, over?: OverlayDirectory) {
    super((upper ?? lower[0])?.mode ?? 0o755)
    this.#upper = upper
    this.#lower = lower
    this.#over = over
  }

  /** The upper directory, copied up when it is not there yet. */
  layer(): Directory {
    if (this.#upper === undefined) {
      const above = this.#over?.layer()
      if (above === undefined) throw new Error("an overlay without an upper layer was written to")
      this.#upper = above.add(this.name, new Directory(this.mode))
    }
    return this.#upper
  }

  override lookup(name: string): Inode | undefined {
    const high = this.#upper?.lookup(name)
    if (high instanceof Whiteout) return undefined
    const low = this.#lower.map((directory) => directory.lookup(name)).find((inode) => inode !== undefined)
    const inode = high ?? low
    if (inode === undefined) return undefined
    const seen = this.#seen.get(name)
    if (seen?.inode === inode || (seen?.view instanceof OverlayDirectory && inode instanceof Directory))
      return seen.view
    const view = this.#view(name, high, inode)
    view.name = name
    view.parent = this
    this.#seen.set(name, { inode, view })
    return view
  }

  #view(name: string, high: Inode | undefined, inode: Inode): Inode {
    if (inode instanceof Directory) {
      const below = this.#lower.flatMap((directory) => {
        const found = directory.lookup(name)
        return found instanceof Directory ? [found] : []
      })
      return new OverlayDirectory(high instanceof Directory ? high : undefined, below, this)
    }
    if (inode instanceof RegularFile && high === undefined) return new LowerFile(inode, this)
    return inode
  }

  override names(): ReadonlyArray<string> {
    const all = new Set([
      ...(this.#upper?.names() ?? []),
      ...this.#lower.flatMap((directory) => directory.names()),
    ])
    return [...all].filter((name) => this.lookup(name) !== undefined)
  }

  override add<I extends Inode>(name: string, inode: I): I {
    this.layer().add(name, inode)
    if (inode instanceof Directory) {
      this.tell(name)
      return inode
    }
    inode.parent = this
    this.#seen.set(name, { inode, view: inode })
    this.tell(name)
    return inode
  }

  override makeDirectory(name: string, mode: number): Directory {
    this.layer().add(name, new Directory(mode))
    this.tell(name)
    return this.lookup(name) as Directory
  }

  override remove(name: string): void {
    this.#seen.delete(name)
    const layer = this.layer()
    if (this.#lower.some((directory) => directory.lookup(name) !== undefined)) layer.add(name, new Whiteout())
    else layer.remove(name)
    this.tell(name)
  }
}
