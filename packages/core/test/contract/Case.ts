// What the Kernel door promises: the same assertions run on TestMachine and on Linux, so that the fake cannot drift.
import * as assert from "node:assert/strict"
import { Context, Effect, type Scope } from "effect"
import { Kernel, type MountFlag, type SpawnSpec } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import type { Client } from "./clients.ts"

/** What differs between the two sides: where a case may work, and how to start programs. */
export class Subject extends Context.Service<
  Subject,
  {
    /** An empty tmpfs of its own for each case. */
    readonly dir: string
    readonly exits: (code: number) => Pick<SpawnSpec, "command" | "args">
    readonly forever: Pick<SpawnSpec, "command" | "args">
    /** Prints `ready`, takes no notice of SIGTERM, and runs for ever. */
    readonly stubborn: Pick<SpawnSpec, "command" | "args">
    readonly prints: (lines: ReadonlyArray<string>) => Pick<SpawnSpec, "command" | "args">
    /** Leaves that many children behind, which end a moment later. */
    readonly leaves: (children: number) => Pick<SpawnSpec, "command" | "args">
    /** Connects to a unix socket, as `pid`. */
    readonly connect: (path: string) => Effect.Effect<Client, Error>
    readonly pid: number
  }
>()("test/Subject") {}

export interface Case {
  readonly name: string
  /** `machine`: only a machine of its own can show it (modules, cgroups, the root), no namespaces of a host's kernel. */
  readonly needs: "machine" | undefined
  readonly run: Effect.Effect<void, unknown, Kernel | Subject | Scope.Scope>
}

export type K = Kernel["Service"]
export type S = Subject["Service"]

type Body = (
  k: K,
  dir: string,
  subject: S,
  // oxlint-disable-next-line typescript/no-explicit-any -- as Effect.gen has it
) => Generator<Effect.Effect<any, unknown, Kernel | Scope.Scope>, void, any>

/**
 * A list of cases, and what adds one: `check` for those that run everywhere, `checkMachine` for those that run on
 * TestMachine and in a virtual machine, but not in the namespaces of a host.
 */
export const group = () => {
  const cases: Array<Case> = []
  const add = (needs: Case["needs"]) => (name: string, body: Body) => {
    cases.push({
      name,
      needs,
      run: Effect.gen(function* () {
        const kernel = yield* Kernel
        const subject = yield* Subject
        yield* Effect.gen(() => body(kernel, subject.dir, subject))
      }),
    })
  }
  return { cases: cases as ReadonlyArray<Case>, check: add(undefined), checkMachine: add("machine") }
}

/** Fails unless the effect fails in this system call with this errno: `open ENOENT`. */
export const refused = (effect: Effect.Effect<unknown, KernelError>, expected: string) =>
  Effect.flatMap(Effect.flip(effect), (error) =>
    Effect.sync(() => assert.equal(`${error.syscall} ${error.errno}`, expected, error.message)),
  ).pipe(
    Effect.catchIf(
      (problem) => !(problem instanceof Error),
      () => Effect.die(new Error(`nothing failed, expected ${expected}`)),
    ),
  )

export const tmpfs = (k: K, target: string, flags: ReadonlyArray<MountFlag> = [], options?: string) =>
  k.mount({
    source: "contract",
    target,
    fstype: "tmpfs",
    flags,
    ...(options === undefined ? {} : { options }),
  })
export const bind = (k: K, source: string, target: string, ...flags: ReadonlyArray<MountFlag>) =>
  k.mount({ source, target, fstype: "none", flags: ["MS_BIND", ...flags] })
export const change = (k: K, target: string, ...flags: ReadonlyArray<MountFlag>) =>
  k.mount({ source: "none", target, fstype: "none", flags })
export const move = (k: K, source: string, target: string) =>
  k.mount({ source, target, fstype: "none", flags: ["MS_MOVE"] })

/** Mounts on a target, in the order of mountinfo: flags, and the propagation's kind. */
export const mountsAt = (k: K, target: string) =>
  Effect.map(k.readText("/proc/self/mountinfo"), (text) =>
    text
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .filter((fields) => fields[4] === target)
      .map((fields) => ({
        flags: fields[5] ?? "",
        root: fields[3] ?? "",
        propagation: fields
          .slice(6, fields.indexOf("-"))
          .map((tag) => tag.replace(/:.*/u, ""))
          .join(" "),
        fstype: fields[fields.indexOf("-") + 1] ?? "",
      })),
  )
export const expectMounts = (k: K, target: string, ...flags: ReadonlyArray<string>) =>
  Effect.map(mountsAt(k, target), (found) =>
    assert.deepEqual(
      found.map((mount) => mount.flags),
      flags,
    ),
  )

// Polled, with a deadline: on Linux another process has to run meanwhile.
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.flatMap((done) => (done ? Effect.succeed(true) : Effect.as(Effect.sleep("2 millis"), false))),
    Effect.repeat({ until: (done: boolean) => done }),
    Effect.timeout("10 seconds"),
  )
