import { Effect } from "effect"
import * as Component from "../Component.ts"
import { concatenate } from "../Transform.ts"
import { type CatalogPart, LIB } from "./Recipe.ts"

/**
 * What the kubelet calls on the host (mount, umount), the trusted CAs, and the
 * programs of the distro's own pods. `busybox` stands alone, so that tests make
 * whole systems of it; `busybox-dynamic` shares the C library with its neighbours.
 */
export const userland: CatalogPart<
  "util-linux" | "ca-certificates" | "busybox" | "busybox-dynamic" | "ndisc6" | "openntpd"
> = (debian) =>
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
      "busybox-dynamic": Component.make({
        name: "busybox-dynamic",
        version: yield* version("busybox"),
        license: "GPL-2.0-only",
        arch: "x86_64",
        provides: ["bin/busybox-dynamic"],
        sources: [
          yield* debian.source({ busybox: [{ from: "usr/bin/busybox", to: "bin/busybox-dynamic" }] }),
        ],
      }),
      ndisc6: Component.make({
        name: "ndisc6",
        version: yield* version("ndisc6"),
        license: "GPL-2.0-only OR GPL-3.0-only",
        arch: "x86_64",
        provides: ["bin/rdisc6"],
        sources: [yield* debian.source({ ndisc6: [{ from: "usr/bin/rdisc6", to: "bin/rdisc6" }] })],
      }),
      openntpd: Component.make({
        name: "openntpd",
        version: yield* version("openntpd"),
        license: "ISC AND BSD-2-Clause AND BSD-3-Clause",
        arch: "x86_64",
        provides: ["bin/ntpd"],
        sources: [yield* debian.source({ openntpd: [{ from: "usr/sbin/ntpd", to: "bin/ntpd" }] })],
      }),
    }
  })
