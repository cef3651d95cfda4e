/** Files of the components of a test's cluster: from the cache, or built when the first test asks. */
import { Effect } from "effect"
import { components, testComponents } from "../../src/components/catalog.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"

const catalog = Effect.gen(function* () {
  return { ...(yield* testComponents), busybox: (yield* components("x86_64")).busybox }
})

/** The path of a component's file: `component("etcd", "bin/etcd")`. */
export const component = Effect.fnUntraced(function* (
  name: keyof Effect.Success<typeof catalog>,
  file: string,
) {
  const store = yield* ComponentStore
  const all = yield* catalog
  return filePath(yield* store.resolve(all[name]), file)
}, Effect.provide(ComponentStore.live))
