import { defineConfig } from "vitest/config"

// Three projects, by what a test needs: nothing (unit), real system calls as
// root in namespaces (kernel), a virtual machine that boots the EFI (vm).
const conditions = ["@kios/source"]
const project = (name: string, extra: Record<string, unknown>) => ({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    name,
    include: [`{packages/*,distro,bench,scripts,examples/*}/test/**/*.${name}.test.ts`],
    ...extra,
  },
})

export default defineConfig({
  test: {
    projects: [
      // A test that hangs is what this is for; a machine that is shared is slower than any guess.
      project("unit", { testTimeout: 90_000 }),
      project("kernel", { testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false }),
      project("vm", { testTimeout: 900_000, hookTimeout: 900_000, fileParallelism: false }),
    ],
  },
})
