/**
 * cgroup v2 of an in-memory machine; Documentation/admin-guide/cgroup-v2.rst,
 * and kernel/cgroup/cgroup.c for what is refused and how.
 */
import * as Effect from "effect/Effect"
import type { Processes } from "./TestProcesses.ts"
import { ControlFile, Directory, type Inode, refuse } from "./TestFiles.ts"

// Controllers that may compete with a group's own members, which makes it the root of a threaded subtree.
const threaded = new Set(["cpuset", "cpu", "pids", "perf_event"])

interface Setting {
  readonly initial: string
  /** What the kernel keeps of what was written. */
  readonly parse: (value: string) => string
}

const PAGE = 4096
const bytes = (value: string): string => {
  if (value === "max") return value
  const match = /^(\d+)([kmgt]?)$/iu.exec(value) ?? refuse("EINVAL")
  const unit = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 }[(match[2] ?? "").toLowerCase()]
  return String(Math.floor((Number(match[1]) * (unit ?? 1)) / PAGE) * PAGE)
}
const number = (least: number, most: number) => (value: string) => {
  if (!/^-?\d+$/u.test(value)) return refuse("EINVAL")
  return Number(value) < least || Number(value) > most ? refuse("ERANGE") : String(Number(value))
}

/** What a group below the root has of a controller that its parent hands out. */
const settings: Readonly<Record<string, Setting>> = {
  "memory.max": { initial: "max", parse: bytes },
  "memory.high": { initial: "max", parse: bytes },
  "memory.low": { initial: "0", parse: bytes },
  "memory.min": { initial: "0", parse: bytes },
  "memory.oom.group": { initial: "0", parse: (value) => (/^[01]$/u.test(value) ? value : refuse("EINVAL")) },
  "pids.max": {
    initial: "max",
    parse: (value) => (/^(max|\d+)$/u.test(value) ? value : refuse("EINVAL")),
  },
  "cpu.weight": { initial: "100", parse: number(1, 10_000) },
  "cpu.max": {
    initial: "max 100000",
    parse: (value) => {
      const match = /^(max|\d+)(?: (\d+))?$/u.exec(value) ?? refuse("EINVAL")
      return `${match[1]} ${match[2] ?? "100000"}`
    },
  },
}
const controllerOf = (file: string): string => file.slice(0, file.indexOf("."))

/** A group. Its path is relative to the root of the hierarchy. */
export class CgroupDirectory extends Directory {
  readonly #processes: Processes
  /** Controllers of the machine, in the kernel's order. */
  readonly #machine: ReadonlyArray<string>
  readonly #above: CgroupDirectory | undefined
  /** The path that a process of this group has in /proc/PID/cgroup. */
  readonly path: string
  readonly #values = new Map<string, string>()
  #enabled: ReadonlySet<string> = new Set()

  constructor(processes: Processes, controllers: ReadonlyArray<string>, above?: CgroupDirectory, name = "") {
    super(0o755)
    this.#processes = processes
    this.#machine = controllers
    this.#above = above
    this.path = above === undefined ? "/" : `${above.path === "/" ? "" : above.path}/${name}`
    const list = (names: Iterable<string>) => {
      const text = [...names].join(" ")
      return text === "" ? "" : `${text}\n`
    }
    const file = (
      of: string,
      show: () => string,
      store: (value: string) => void = () => refuse("EINVAL"),
      mode = 0o644,
    ) => {
      this.add(of, new ControlFile(show, store)).mode = mode
    }
    file("cgroup.controllers", () => list(this.#available()), undefined, 0o444)
    file(
      "cgroup.subtree_control",
      () => list(this.#machine.filter((one) => this.#enabled.has(one))),
      (value) => this.#enable(value),
    )
    file(
      "cgroup.procs",
      () =>
        this.#members()
          .map((pid) => `${pid}\n`)
          .join(""),
      (value) => this.#move(value),
    )
    if (above === undefined) return
    file(
      "cgroup.type",
      () => `${this.#isThreadRoot() ? "domain threaded" : this.#isValid() ? "domain" : "domain invalid"}\n`,
    )
    file("cgroup.events", () => `populated ${this.#isPopulated() ? 1 : 0}\nfrozen 0\n`, undefined, 0o444)
    this.#setting("cgroup.freeze", { initial: "0", parse: number(0, 1) })
    file(
      "cgroup.kill",
      () => refuse("EINVAL"),
      (value) => this.#kill(value),
      0o200,
    )
    for (const [key, setting] of Object.entries(settings)) this.#setting(key, setting)
  }

  #setting(name: string, { initial, parse }: Setting): void {
    this.add(
      name,
      new ControlFile(
        () => `${this.#values.get(name) ?? initial}\n`,
        (value) => void this.#values.set(name, parse(value)),
      ),
    )
  }

  #available(): ReadonlyArray<string> {
    const above = this.#above
    return above === undefined ? this.#machine : this.#machine.filter((one) => above.#enabled.has(one))
  }

  #members(): ReadonlyArray<number> {
    return [
      ...(this.#processes.initCgroup === this.path ? [1] : []),
      ...[...this.#processes.table.values()]
        .filter((process) => process.status === undefined && (process.cgroup ?? "/") === this.path)
        .map((process) => process.pid),
    ]
  }

  #groups(): ReadonlyArray<CgroupDirectory> {
    return [...this.entries.values()].filter((inode) => inode instanceof CgroupDirectory)
  }

  #isPopulated(): boolean {
    return this.#members().length > 0 || this.#groups().some((group) => group.#isPopulated())
  }

  #hasDomainController(): boolean {
    return [...this.#enabled].some((one) => !threaded.has(one))
  }

  #isThreadRoot(): boolean {
    if (this.#above === undefined || this.#members().length === 0) return false
    return [...this.#enabled].some((one) => threaded.has(one))
  }

  #canBeThreadRoot(): boolean {
    return !this.#hasDomainController() && !this.#groups().some((group) => group.#isPopulated())
  }

  /** Whether it may have members and controllers of its own: nothing below a thread root may. */
  #isValid(): boolean {
    for (let above = this.#above; above !== undefined; above = above.#above)
      if (above.#isThreadRoot()) return false
    return true
  }

  #enable(value: string): void {
    const words = value.split(/\s+/u).filter((part) => part !== "")
    const wanted = words.map((word) => {
      const [, sign, name = ""] = /^([+-])(\w+)$/u.exec(word) ?? refuse("EINVAL")
      return this.#machine.includes(name) ? { on: sign === "+", name } : refuse("EINVAL")
    })
    const next = new Set(this.#enabled)
    const added: Array<string> = []
    for (const { name, on } of wanted) {
      if (on === next.has(name)) continue
      if (on) {
        if (!this.#available().includes(name)) refuse("ENOENT")
        next.add(name)
        added.push(name)
      } else {
        if (this.#groups().some((group) => group.#enabled.has(name))) refuse("EBUSY")
        next.delete(name)
      }
    }
    if (added.length > 0 && this.#above !== undefined) this.#assertMayEnable(added)
    this.#enabled = next
    // A controller that is taken away forgets what it was told.
    for (const group of this.#groups())
      for (const key of group.#values.keys())
        if (key in settings && !next.has(controllerOf(key))) group.#values.delete(key)
  }

  #assertMayEnable(added: ReadonlyArray<string>): void {
    if (!this.#isValid()) refuse("ENOTSUP")
    if (added.some((name) => !threaded.has(name))) {
      if (this.#isThreadRoot()) refuse("ENOTSUP")
    } else if (this.#canBeThreadRoot()) return
    // "No internal processes": a group with members distributes nothing to its children.
    if (this.#members().length > 0) refuse("EBUSY")
  }

  #move(value: string): void {
    if (!/^\d+$/u.test(value.trim())) refuse("EINVAL")
    const pid = Number(value)
    const process = pid > 1 ? (this.#processes.table.get(pid) ?? refuse("ESRCH")) : undefined
    this.assertTakes()
    if (process === undefined) this.#processes.initCgroup = this.path
    else process.cgroup = this.path
  }

  #kill(value: string): void {
    number(1, 1)(value)
    for (const group of this.#groups()) group.#kill(value)
    for (const pid of this.#members()) if (pid !== 1) Effect.runSync(this.#processes.kill(pid, "SIGKILL"))
  }

  // Files of controllers come and go with what the parent hands out.
  #shows(name: string): boolean {
    return !(name in settings) || this.#available().includes(controllerOf(name))
  }

  override lookup(name: string): Inode | undefined {
    return this.#shows(name) ? super.lookup(name) : undefined
  }

  override names(): ReadonlyArray<string> {
    return super.names().filter((name) => this.#shows(name))
  }

  override makeDirectory(name: string, _mode: number): Directory {
    return this.add(name, new CgroupDirectory(this.#processes, this.#machine, this, name))
  }

  override create<I extends Inode>(_name: string, inode: I): I {
    return refuse(inode.kind === "file" ? "EACCES" : "EPERM")
  }

  /** Fails as the move of a process into it would. */
  assertTakes(): void {
    if (this.#above === undefined) return
    if (!this.#isValid()) refuse("ENOTSUP", "write")
    if (this.#enabled.size > 0 && !this.#canBeThreadRoot()) refuse("EBUSY", "write")
  }
}
