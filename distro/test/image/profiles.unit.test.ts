import { assert, it } from "@effect/vitest"
import { modulesOf } from "../../src/HardwareProfile.ts"
import { profiles } from "../../src/profiles.ts"
import { recipe } from "../../src/recipe.ts"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import { pipeline } from "../../src/pipeline.ts"

it("a module is stored plain or compressed, and what every node loads is plain", () => {
  for (const profile of Object.values(profiles)) {
    const { compressed, plain } = modulesOf(profile)
    const twice = compressed.filter((name) => plain.includes(name))
    assert.deepStrictEqual(twice, [], profile.name)
    for (const name of [
      ...KernelModules.bootModules,
      ...KernelModules.nodeModules,
      ...KernelModules.podModules,
    ])
      assert.include(plain, name)
    for (const group of profile.modules) assert.notStrictEqual(group.why, "", group.name)
    assert.strictEqual(new Set(profile.modules.map(({ name }) => name)).size, profile.modules.length)
  }
})

it("the reference distro is for the cloud, and generic has all that cloud has", () => {
  assert.strictEqual(recipe.hardware, profiles.cloud)
  const names = (profile: keyof typeof profiles) =>
    profiles[profile].modules.flatMap((group) => group.modules)
  const generic = new Set(names("generic"))
  assert.deepStrictEqual(
    names("cloud").filter((name) => !generic.has(name)),
    [],
  )
})

it("no driver is in a list of the pipeline: devices say which are needed", () => {
  const stages = pipeline.stages.filter(({ name }) => name.endsWith("-modules"))
  assert.strictEqual(stages.length, 4)
  const drivers = profiles.generic.modules
    .filter(({ loaded }) => loaded === "device")
    .flatMap((group) => group.modules)
  const lists = new Set([
    ...KernelModules.bootModules,
    ...KernelModules.nodeModules,
    ...KernelModules.podModules,
  ])
  assert.deepStrictEqual(
    drivers.filter((name) => lists.has(name)),
    [],
  )
})
