import { Effect } from "effect"
import * as Component from "../Component.ts"
import { type CatalogPart, LIB } from "./Recipe.ts"

const library = (name: string) => ({ from: `${LIB}/${name}`, to: `lib/${name}` })

/**
 * Shared libraries: what node, koffi, mount, umount and the images' programs need and nothing else.
 * `catalog.kernel.test.ts` reads the ELF headers of the whole catalog and fails
 * on a library that is needed and not there, and on one that nobody needs.
 */
export const libraries: CatalogPart<"glibc" | "gcc-libs" | "libselinux" | "pcre2"> = (debian) =>
  Effect.gen(function* () {
    const version = (name: string) => Effect.map(debian.pin(name), (pin) => pin.version)
    return {
      glibc: Component.make({
        name: "glibc",
        version: yield* version("libc6"),
        license: "LGPL-2.1-or-later",
        arch: "x86_64",
        provides: [
          "lib64/ld-linux-x86-64.so.2",
          "lib/libc.so.6",
          "lib/libm.so.6",
          "lib/libdl.so.2",
          "lib/libpthread.so.0",
          "lib/libresolv.so.2",
        ],
        sources: [
          yield* debian.source({
            libc6: [
              // The loader's path is written into every program.
              { from: `${LIB}/ld-linux-x86-64.so.2`, to: "lib64/ld-linux-x86-64.so.2" },
              library("libc.so.6"),
              library("libm.so.6"),
              // Empty since glibc 2.34, and still named by node's ELF header.
              library("libdl.so.2"),
              library("libpthread.so.0"),
              // busybox, in the images of the distro's pods.
              library("libresolv.so.2"),
            ],
          }),
        ],
      }),
      "gcc-libs": Component.make({
        name: "gcc-libs",
        version: yield* version("libstdc++6"),
        license: "GPL-3.0-or-later WITH GCC-exception-3.1",
        arch: "x86_64",
        provides: ["lib/libstdc++.so.6", "lib/libgcc_s.so.1"],
        sources: [
          yield* debian.source({
            "libstdc++6": [library("libstdc++.so.6")],
            "libgcc-s1": [library("libgcc_s.so.1")],
          }),
        ],
      }),
      libselinux: Component.make({
        name: "libselinux",
        version: yield* version("libselinux1"),
        license: "libselinux-1.0",
        arch: "x86_64",
        provides: ["lib/libselinux.so.1"],
        sources: [yield* debian.source({ libselinux1: [library("libselinux.so.1")] })],
      }),
      pcre2: Component.make({
        name: "pcre2",
        version: yield* version("libpcre2-8-0"),
        license: "BSD-3-Clause WITH PCRE2-exception",
        arch: "x86_64",
        provides: ["lib/libpcre2-8.so.0"],
        sources: [yield* debian.source({ "libpcre2-8-0": [library("libpcre2-8.so.0")] })],
      }),
    }
  })
