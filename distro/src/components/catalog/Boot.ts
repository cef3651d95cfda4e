import { Effect } from "effect"
import * as Component from "../Component.ts"
import type { CatalogPart } from "./Recipe.ts"

/** The kernel and the stub that makes one EFI of it. */
export const boot: CatalogPart<"kernel" | "efi-stub"> = (debian) =>
  Effect.gen(function* () {
    const signed = yield* debian.pin("kernel")
    const stub = yield* debian.pin("systemd-boot-efi")
    const release = signed.package.replace(/^linux-image-/u, "")
    const files = [
      { from: `boot/vmlinuz-${release}`, to: "boot/vmlinuz" },
      { from: `boot/config-${release}`, to: "boot/config" },
      // With modules.order and modules.builtin. modules.dep is made by depmod on installation: the package has none.
      { from: `usr/lib/modules/${release}`, to: `lib/modules/${release}` },
    ] as const
    return {
      kernel: Component.make({
        name: "kernel",
        version: signed.version,
        license: "GPL-2.0-only WITH Linux-syscall-note",
        arch: "x86_64",
        provides: ["boot/vmlinuz", "boot/config", `lib/modules/${release}/`],
        attributes: { release },
        sources: [
          // Signed by Debian for Secure Boot; the unsigned build is otherwise the same kernel.
          yield* debian.source({ kernel: files }),
          yield* debian.source({ "kernel-unsigned": files }),
        ],
      }),
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
