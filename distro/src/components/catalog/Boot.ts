import { Effect } from "effect"
import * as Component from "../Component.ts"
import type { CatalogPart, DebianRecipes } from "./Recipe.ts"

/** The kernel and the stub that makes one EFI of it. */
export const boot: CatalogPart<"kernel" | "kernel-generic" | "efi-stub"> = (debian) =>
  Effect.gen(function* () {
    const stub = yield* debian.pin("systemd-boot-efi")
    return {
      // Debian's cloud kernel: the drivers of virtual machines, and few others.
      kernel: yield* kernel("kernel", debian),
      // Debian's full kernel, of the same version.
      "kernel-generic": yield* kernel("kernel-generic", debian),
      "efi-stub": Component.make({
        name: "efi-stub",
        version: stub.version,
        license: "LGPL-2.1-or-later",
        arch: "x86_64",
        provides: ["linuxx64.efi.stub"],
        sources: [
          yield* debian.source({
            "systemd-boot-efi": [
              { from: "usr/lib/systemd/boot/efi/linuxx64.efi.stub", to: "linuxx64.efi.stub" },
            ],
          }),
        ],
      }),
    }
  })

/** A kernel with its modules, from the pinned packages `name` and `name-unsigned`. */
const kernel = <const Name extends "kernel" | "kernel-generic">(name: Name, debian: DebianRecipes) =>
  Effect.gen(function* () {
    const signed = yield* debian.pin(name)
    const release = signed.package.replace(/^linux-image-/u, "")
    const files = [
      { from: `boot/vmlinuz-${release}`, to: "boot/vmlinuz" },
      { from: `boot/config-${release}`, to: "boot/config" },
      // With modules.order and modules.builtin. modules.dep is made by depmod on installation: the package has none.
      { from: `usr/lib/modules/${release}`, to: `lib/modules/${release}` },
    ] as const
    return Component.make({
      name,
      version: signed.version,
      license: "GPL-2.0-only WITH Linux-syscall-note",
      arch: "x86_64",
      provides: ["boot/vmlinuz", "boot/config", `lib/modules/${release}/`],
      attributes: { release },
      sources: [
        // Signed by Debian for Secure Boot; the unsigned build is otherwise the same kernel.
        yield* debian.source({ [name]: files }),
        yield* debian.source({ [`${name}-unsigned`]: files }),
      ],
    })
  })
