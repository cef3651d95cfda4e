import { Effect } from "effect"
import * as Component from "../Component.ts"
import { concatenate } from "../Transform.ts"
import { type CatalogPart, LIB } from "./Recipe.ts"

/** What the kubelet calls on the host (mount, umount), the trusted CAs, and busybox for the sample image. */
export const userland: CatalogPart<"util-linux" | "ca-certificates" | "busybox"> = (debian) =>
  Effect.gen(function* () {
    const version = (name: string) => Effect.map(debian.pin(name), (pin) => pin.version)
    return {
      "util-linux": Component.make({
        name: "util-linux",
        version: yield* version("mount"),
        license: "GPL-2.0-or-later AND LGPL-2.1-or-later",
        arch: "x86_64",
        provides: ["bin/mount", "bin/umount", "lib/libmount.so.1", "lib/libblkid.so.1"],
        sources: [
          yield* debian.source({
            mount: [
              { from: "usr/bin/mount", to: "bin/mount" },
              { from: "usr/bin/umount", to: "bin/umount" },
            ],
            libmount1: [{ from: `${LIB}/libmount.so.1`, to: "lib/libmount.so.1" }],
            libblkid1: [{ from: `${LIB}/libblkid.so.1`, to: "lib/libblkid.so.1" }],
          }),
        ],
      }),
      "ca-certificates": Component.make({
        name: "ca-certificates",
        version: yield* version("ca-certificates"),
        license: "MPL-2.0",
        arch: "x86_64",
        provides: ["etc/ssl/certs/ca-certificates.crt"],
        sources: [
          concatenate(
            yield* debian.source({
              "ca-certificates": [{ from: "usr/share/ca-certificates/mozilla", to: "mozilla" }],
            }),
            { directory: "mozilla", suffix: ".crt", to: "etc/ssl/certs/ca-certificates.crt" },
          ),
        ],
      }),
      busybox: Component.make({
        name: "busybox",
        version: yield* version("busybox-static"),
        license: "GPL-2.0-only",
        arch: "x86_64",
        provides: ["bin/busybox"],
        sources: [
          yield* debian.source({ "busybox-static": [{ from: "usr/bin/busybox", to: "bin/busybox" }] }),
        ],
      }),
    }
  })
