// Compositions that must not compile, and what the compiler says of them. `tsc` over this file is the test of the
// `@ts-expect-error` lines; the messages are read from the real compiler below.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { execFileSync, type ExecFileSyncOptions } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { Kernel } from "@kios/core/Kernel"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"

class A extends Context.Service<A, { readonly v: number }>()("t/A") {}
class B extends Context.Service<B, { readonly v: number }>()("t/B") {}

const layerA = Layer.succeed(A, { v: 1 })
const layerB = Layer.succeed(B, { v: 1 })
const a = Stage.make({ name: "a", description: "", provides: [A], layer: layerA })
const maybeA = Stage.make({
  name: "maybe-a",
  description: "",
  criticality: "optional",
  provides: [A],
  layer: layerA,
})
const b = Stage.make({ name: "b", description: "", provides: [B], requires: [A], layer: layerB })
const maybeB = Stage.make({
  name: "maybe-b",
  description: "",
  criticality: "optional",
  provides: [B],
  requires: [A],
  layer: layerB,
})

describe("compositions", () => {
  it("that fit", () => {
    assert.strictEqual(Pipeline.make([a, b]).stages.length, 2)
    assert.strictEqual(Pipeline.make([maybeA, maybeB]).stages.length, 2)
    assert.strictEqual(Pipeline.make([]).stages.length, 0)
    // A required stage's services are the pipeline's, an optional one's are not.
    const provided: Layer.Success<ReturnType<typeof Pipeline.make<[typeof a, typeof maybeB]>>["layer"]> =
      undefined as never as A
    assert.isUndefined(provided)
  })
  it("that need what nobody provides", () => {
    // @ts-expect-error  stage "b" needs "t/A", which no earlier stage provides
    assert.throws(() => Pipeline.make([b]), 'stage "b" needs "t/A", which no earlier stage provides')
  })
  it("that need what only a later stage provides", () => {
    // @ts-expect-error  stage "b" needs "t/A", which no earlier stage provides
    assert.throws(() => Pipeline.make([b, a]), 'stage "b" needs "t/A"')
  })
  it("in which two provide the same", () => {
    // @ts-expect-error  stage "maybe-a" provides "t/A", which an earlier stage already provides
    Pipeline.make([a, maybeA])
  })
  it("in which a required stage rests on an optional one", () => {
    // @ts-expect-error  stage "b" is required but needs "t/A", which only an optional stage provides
    Pipeline.make([maybeA, b])
  })
})

describe("stages", () => {
  it("may use what they declare, and the platform", () => {
    Stage.make({
      name: "x",
      description: "",
      requires: [A],
      layer: Layer.effectDiscard(Effect.andThen(A, Kernel)),
    })
  })
  it("whose layer uses what they do not declare", () => {
    // @ts-expect-error  stage "..." uses "...", which its requires does not list
    Stage.make({ name: "x", description: "", layer: Layer.effectDiscard(A) })
  })
  it("that do not bring up what they say they provide", () => {
    // @ts-expect-error  Type 'B' is not assignable to type 'A'
    Stage.make({ name: "x", description: "", provides: [A], layer: layerB })
  })
  it("whose service's key is no literal", () => {
    const key: string = "t/Loose"
    const Loose = Context.Service<{ readonly loose: true }, { readonly v: number }>(key)
    // @ts-expect-error  declare the service as a class: its key must be a literal type
    Stage.make({ name: "x", description: "", provides: [Loose], layer: Layer.succeed(Loose, { v: 1 }) })
    // @ts-expect-error  declare the service as a class: its key must be a literal type
    Stage.make({ name: "x", description: "", requires: [Loose], layer: Layer.effectDiscard(Loose) })
  })
})

const repository = fileURLToPath(new URL("../../../", import.meta.url))

/** What the compiler says of a program, with the project's own options. */
const compile = (source: string): string => {
  const cache = path.join(repository, "node_modules/.cache/kios-types")
  fs.mkdirSync(cache, { recursive: true })
  const directory = fs.mkdtempSync(path.join(cache, "fixture-"))
  try {
    fs.writeFileSync(path.join(directory, "fixture.ts"), source)
    fs.writeFileSync(
      path.join(directory, "tsconfig.json"),
      JSON.stringify({
        extends: path.join(repository, "tsconfig.base.json"),
        compilerOptions: {
          noEmit: true,
          composite: false,
          declaration: false,
          declarationMap: false,
          noUnusedLocals: false,
        },
        files: ["fixture.ts"],
      }),
    )
    const options: ExecFileSyncOptions = { cwd: repository, encoding: "utf8" }
    execFileSync(
      process.execPath,
      [path.join(repository, "node_modules/typescript/bin/tsc"), "-p", directory],
      options,
    )
    return ""
  } catch (cause) {
    const failed = cause as { readonly stdout?: string; readonly stderr?: string }
    return `${failed.stdout ?? ""}${failed.stderr ?? ""}`
  } finally {
    fs.rmSync(directory, { recursive: true })
  }
}

// The reference distro's own composition, so that this follows it.
const reference = fs
  .readFileSync(path.join(repository, "distro/src/pipeline.ts"), "utf8")
  .replaceAll('"./', `"${path.join(repository, "distro/src")}/`)
const containerd = /^ *Containerd\.make\(.*\),\n/mu

// The compiler shows a literal type with its quotes escaped.
const told = (output: string) => output.replaceAll('\\"', '"')

describe("what the compiler says", { timeout: 60_000 }, () => {
  it("of the reference distro: nothing", () => {
    assert.match(reference, containerd)
    assert.strictEqual(compile(reference), "")
  })
  it("of the reference distro without containerd: the stage and the service", () => {
    const output = told(compile(reference.replace(containerd, "")))
    assert.include(output, 'stage "kubelet" needs "kios/ContainerRuntime", which no earlier stage provides')
  })
  it("of two hostname stages, an optional foundation and an undeclared service, in one go", () => {
    const output = told(
      compile(`
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import { Hostname } from "@kios/core/capabilities/Hostname"
class A extends Context.Service<A, { readonly v: number }>()("t/A") {}
const optional = Stage.make({ name: "maybe", description: "", criticality: "optional", provides: [A], layer: Layer.succeed(A, { v: 1 }) })
const user = Stage.make({ name: "user", description: "", requires: [A], layer: Layer.effectDiscard(A) })
const hostname = Stage.make({ name: "hostname", description: "", provides: [Hostname], layer: Layer.succeed(Hostname, { name: "x" }) })
export const twice = Pipeline.make([hostname, hostname])
export const rests = Pipeline.make([optional, user])
export const undeclared = Stage.make({ name: "sneaky", description: "", layer: Layer.effectDiscard(A) })
`),
    )
    assert.include(
      output,
      'stage "hostname" provides "kios/Hostname", which an earlier stage already provides',
    )
    assert.include(output, 'stage "user" is required but needs "t/A", which only an optional stage provides')
    assert.include(output, 'stage "sneaky" uses "t/A", which its requires does not list')
  })
})
