/**
 * cgroup v2 of an in-memory machine; Documentation/admin-guide/cgroup-v2.rst.
 */
import type { Processes } from "./TestProcesses.ts"
import { ControlFile, Directory, type Inode, refuse } from "./TestFiles.ts"

/** A group. Its path is relative to the root of the hierarchy. */
export class CgroupDirectory extends Directory {
  readonly #processes: Processes
  readonly #available: () => ReadonlyArray<string>
  readonly #path: string
  readonly #initGroup: { path: string }
  #enabled: ReadonlySet<string> = new Set()

  constructor(
    processes: Processes,
    available: () => ReadonlyArray<string>,
    path = "/",
    initGroup: { path: string } = { path: "/" },
  ) {
    super(0o755)
    this.#processes = processes
    this.#available = available
    this.#path = path
    this.#initGroup = initGroup
    const list = (names: Iterable<string>) => [...names].join(" ") + "\n"
    this.add("cgroup.controllers", new ControlFile(() => list(available())))
    this.add(
      "cgroup.subtree_control",
      new ControlFile(
        () => list(this.#enabled),
        (value) => this.#enable(value),
      ),
    )
    this.add(
      "cgroup.procs",
      new ControlFile(
        () =>
          this.#members()
            .map((pid) => `${pid}\n`)
            .join(""),
        (value) => this.#move(value),
      ),
    )
  }

  #members(): ReadonlyArray<number> {
    return [
      ...(this.#initGroup.path === this.#path ? [1] : []),
      ...[...this.#processes.table.values()]
        .filter((process) => process.status === undefined && (process.cgroup ?? "/") === this.#path)
        .map((process) => process.pid),
    ]
  }

  #enable(value: string): void {
    const next = new Set(this.#enabled)
    for (const word of value.split(/\s+/u).filter((part) => part !== "")) {
      const match = /^([+-])(\w+)$/u.exec(word) ?? refuse("EINVAL")
      const [, sign, name = ""] = match
      if (sign === "-") next.delete(name)
      else if (this.#available().includes(name)) next.add(name)
      else refuse(known.has(name) ? "ENOENT" : "EINVAL")
    }
    // "No internal processes": a group with members distributes nothing to its children.
    if (this.#path !== "/" && next.size > 0 && this.#members().length > 0) refuse("EBUSY")
    this.#enabled = next
  }

  #move(value: string): void {
    if (!/^\d+$/u.test(value.trim())) refuse("EINVAL")
    if (this.#path !== "/" && this.#enabled.size > 0) refuse("EBUSY")
    const pid = Number(value)
    if (pid === 0 || pid === 1) {
      this.#initGroup.path = this.#path
      return
    }
    const process = this.#processes.table.get(pid) ?? refuse("ESRCH")
    process.cgroup = this.#path
  }

  override makeDirectory(name: string, _mode: number): Directory {
    const path = `${this.#path === "/" ? "" : this.#path}/${name}`
    return this.add(
      name,
      new CgroupDirectory(this.#processes, () => [...this.#enabled], path, this.#initGroup),
    )
  }

  override create<I extends Inode>(_name: string, inode: I): I {
    return refuse(inode.kind === "file" ? "EACCES" : "EPERM")
  }

  /** The path that a process of this group has in /proc/PID/cgroup. */
  get path(): string {
    return this.#path
  }

  /** Fails as the move of a process that is about to start would. */
  assertTakes(): void {
    if (this.#path !== "/" && this.#enabled.size > 0) refuse("EBUSY")
  }
}

const known = new Set(["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"])
