/** The kubelet and containerd of the image, for tests that start them on the development machine. */
import { Effect } from "effect"
import { filePath } from "../../src/components/Resolved.ts"
import { components } from "../../src/components/catalog.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"

/** Their paths, by the names of the variables in which the tests' programs get them. */
export const programs = Effect.gen(function* () {
  const catalog = yield* components("x86_64")
  const store = yield* ComponentStore
  return {
    KUBELET: filePath(yield* store.resolve(catalog.kubelet), "bin/kubelet"),
    CONTAINERD: filePath(yield* store.resolve(catalog.containerd), "bin/containerd"),
  }
}).pipe(Effect.provide(ComponentStore.live))
