/**
 * A node that was built with a policy pulls from the test's registry: what is
 * allowed and pinned runs, and the kubelet says why the others do not. For the
 * soak: npm test has the same of containerd alone, in registry.kernel.test.ts.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as OciArchive from "../../src/image/OciArchive.ts"
import { withPolicy } from "../../src/ImagePolicy.ts"
import { soaking } from "../../../packages/core/test/support/Scale.ts"
import { recipe } from "../../src/recipe.ts"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import {
  buildVariant,
  busybox,
  eventually,
  staticPod,
  temporaryDirectory,
  unhardened,
} from "../boot/support.ts"
import { makeAuthority, serve } from "./Registry.ts"

const MANIFESTS = "meta/etc/kubernetes/manifests"

/** An image that sleeps. */
const writeImage = Effect.fnUntraced(
  function* (file: string) {
    const store = yield* ComponentStore
    const source = filePath(yield* store.resolve((yield* components("x86_64")).busybox), "bin/busybox")
    const { images } = yield* OciArchive.build(
      [
        {
          name: "registry.example/team/app:1",
          architecture: "amd64",
          files: [{ path: "bin/busybox", mode: 0o755, source }],
          config: { entrypoint: ["/bin/busybox", "sleep", "100000"] },
        },
      ],
      file,
    )
    const [image] = images
    return image ?? (yield* Effect.die(new Error("the archive has no image")))
  },
  Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)),
)

it.live.runIf(soaking)(
  "an allowed and pinned image is pulled with the authority of certs.d; the kubelet says why others are not",
  () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const archive = path.join(directory, "app.tar")
      const image = yield* writeImage(archive)
      const authority = makeAuthority(directory)
      const login = { user: "node", password: "s3cret" }
      const names = ["team", "other", "private"].map((name) => [`${name}/app:1`, archive])
      const trusted = yield* serve(authority, Object.fromEntries(names), login)
      // The same authority, of which the node does not know that it may vouch for this one.
      const untrusted = yield* serve(authority, { "team/app:1": archive }, login)
      const [known, unknown] = [`10.0.2.2:${trusted.port}`, `10.0.2.2:${untrusted.port}`]

      const policy = path.join(directory, "image-policy.txt")
      fs.writeFileSync(
        policy,
        `require digest\nallow ${known}/team/\nallow ${known}/private/\nallow ${unknown}/team/\n`,
      )
      // Packed for this one boot.
      const quick = { ...recipe, compression: { compression: "zstd", level: 1 } } as const
      const efi = yield* buildVariant(yield* withPolicy(quick, policy), directory)

      const disk = path.join(directory, "data.img")
      const pinned = `team/app@${image.manifestDigest}`
      const pods: Readonly<Record<string, string>> = {
        pinned: `${known}/${pinned}`,
        tagged: `${known}/team/app:1`,
        secret: `${known}/private/app@${image.manifestDigest}`,
        elsewhere: `${known}/other/app@${image.manifestDigest}`,
        untrusted: `${unknown}/${pinned}`,
      }
      const text = (at: string, content: string) => ({ path: at, bytes: Buffer.from(content) })
      const certs = `meta/etc/containerd/certs.d/${known}`
      yield* DiskImage.write({
        output: disk,
        data: {
          sizeMiB: 384,
          files: [
            text(`${MANIFESTS}/kios-probe.json`, Probe.probeManifest({ image: busybox })),
            ...Object.entries(pods).map(([name, from]) =>
              text(
                `${MANIFESTS}/${name}.json`,
                staticPod("default", name, { image: from, imagePullPolicy: "IfNotPresent" }),
              ),
            ),
            text(
              `${certs}/hosts.toml`,
              `[host."https://${known}"]\n  ca = "/etc/containerd/certs.d/${known}/ca.crt"\n`,
            ),
            text(`${certs}/ca.crt`, authority.ca),
            // /var/lib/kubelet/config.json, which the kubelet takes credentials from.
            text(
              "data/pods/config.json",
              JSON.stringify({
                auths: {
                  [known]: { auth: Buffer.from(`${login.user}:${login.password}`).toString("base64") },
                },
              }),
            ),
          ],
        },
      })
      const machine = yield* VmRun.boot({
        efi,
        boot: "kernel",
        cmdline: unhardened,
        memoryMiB: 1536,
        network: "user",
        ports: [Probe.defaultProbePort],
        disks: [{ path: disk, format: "raw" }],
        noReboot: true,
      })
      const goal = {
        milestones: ["boot-complete"],
        pods: ["default/kios-probe", "default/pinned", "default/secret"],
      }
      const verdict = yield* machine.until(goal, { timeout: "15 minutes" })
      assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
      const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
      yield* probe.ready()
      /** What the kubelet has said of a pod's image. */
      const said = (pod: string, pattern: RegExp) =>
        eventually(
          `${pod}: ${pattern}`,
          Effect.gen(function* () {
            const { stdout } = yield* probe.exec(
              `grep -h 'default/${pod}-' /host/run/kios/log/kubelet.log* | grep -i pull | tail -n 5`,
              { timeout: "1 minute" },
            )
            if (!pattern.test(stdout)) return yield* Effect.fail(new Error(stdout.slice(-2000)))
          }),
          240,
        )
      yield* said("tagged", /image verifier bindir blocked pull of .*it is not pinned by digest/u)
      yield* said("elsewhere", /blocked pull of .*it is not on the allow-list of \/lib\/kios\/image-policy/u)
      yield* said("untrusted", /x509: certificate signed by unknown authority/u)
      // Both pods that run have the same image: who was first fetched it, the other found it there.
      const fetched = `app/blobs/${image.layerDigests[0]} 200`
      assert.lengthOf(
        trusted.requests.filter((line) => line.startsWith("GET ") && line.endsWith(fetched)),
        1,
        trusted.requests.join("\n"),
      )
      assert.isFalse(trusted.requests.some((line) => line.includes("/other/app/blobs/")))
      // Its TLS failed, so that nothing was ever asked of it.
      assert.deepStrictEqual(untrusted.requests, [])
    }).pipe(Effect.scoped),
  { timeout: 2_400_000 },
)
