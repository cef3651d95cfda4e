/**
 * Pulls as the kubelet asks for them (CRI), by the real containerd with the
 * configuration of a node, from a registry of the test's own.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import { awaitReady } from "@kios/stages-runtime/containerd/Probe"
import {
  BinaryWriter,
  text,
  visitFields,
  writeBytes,
  writeString,
} from "@kios/stages-runtime/containerd/Proto"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import { components } from "../../src/components/catalog.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as OciArchive from "../../src/image/OciArchive.ts"
import { makeAuthority, serve } from "./Registry.ts"

const LOGIN = { user: "node", password: "s3cret" }

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-registry-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
)

const component = (name: "containerd" | "runc" | "image-policy", file: string) =>
  Effect.gen(function* () {
    const store = yield* ComponentStore
    return filePath(yield* store.resolve((yield* components("x86_64"))[name]), file)
  }).pipe(Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)))

/** containerd with a node's configuration in a directory of its own. */
const runtime = Effect.fnUntraced(function* (directory: string) {
  const at = (name: string) => path.join(directory, name)
  const program = yield* component("containerd", "bin/containerd")
  const config = {
    ...ContainerdConfig.reference,
    root: at("root"),
    state: at("state"),
    address: at("containerd.sock"),
    registryConfigPath: at("certs.d"),
    imageVerifierDir: at("image-verifiers"),
    cniConfDir: at("cni"),
  }
  fs.writeFileSync(at("config.toml"), ContainerdConfig.render(config))
  fs.mkdirSync(at("cni"))
  const log = fs.openSync(at("log"), "w")
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(program, ["--config", at("config.toml")], {
        stdio: ["ignore", log, log],
        env: { PATH: `${path.dirname(program)}:${process.env["PATH"]}` },
      }),
    ),
    (child) =>
      Effect.callback<void>((done) => {
        if (child.exitCode !== null) return done(Effect.void)
        child.once("exit", () => done(Effect.void))
        child.kill("SIGKILL")
      }),
  )
  fs.closeSync(log)
  yield* awaitReady(config.address).pipe(
    Effect.timeout("60 seconds"),
    Effect.mapError(
      (error) => new Error(`${error.message}\n${fs.readFileSync(at("log"), "utf8").slice(-3000)}`),
    ),
  )
  const grpc = yield* makeGrpc(config.address)
  /** PullImageRequest: image = 1 (ImageSpec: image = 1), auth = 2 (AuthConfig: username = 1, password = 2). */
  const pull = (image: string, login?: typeof LOGIN) => {
    const request = writeBytes(new BinaryWriter(), 1, writeString(new BinaryWriter(), 1, image).finish())
    if (login !== undefined) {
      const auth = writeString(writeString(new BinaryWriter(), 1, login.user), 2, login.password)
      writeBytes(request, 2, auth.finish())
    }
    return grpc.unary("/runtime.v1.ImageService/PullImage", request.finish(), (message) => {
      let id = ""
      visitFields(message, (f) => {
        if (f.number === 1) id = text(f)
      })
      return id
    })
  }
  return { pull, certs: config.registryConfigPath, verifiers: config.imageVerifierDir }
})

/** A registry with a public and a private image, and a runtime that looks for `registry.example` there. */
const setUp = Effect.gen(function* () {
  const directory = yield* temporaryDirectory
  const archive = path.join(directory, "app.tar")
  const { images } = yield* OciArchive.build(
    [
      {
        name: "registry.example/team/app:1",
        architecture: "amd64",
        files: [{ path: "app", mode: 0o755, source: { bytes: Buffer.from("program") } }],
        config: { entrypoint: ["/app"] },
      },
    ],
    archive,
  )
  const image = images[0]!
  const authority = makeAuthority(directory)
  const repositories = { "team/app:1": archive, "private/app:1": archive, "other/app:1": archive }
  const registry = yield* serve(authority, repositories, LOGIN)
  const containerd = yield* runtime(directory)
  /** certs.d/HOST/hosts.toml, as an operator writes it. */
  const hosts = (host: string, toml: string) => {
    fs.mkdirSync(path.join(containerd.certs, host), { recursive: true })
    fs.writeFileSync(path.join(containerd.certs, host, "hosts.toml"), toml)
  }
  const trusted = `[host."https://127.0.0.1:${registry.port}"]\n  ca = "${authority.caFile}"\n`
  return { ...containerd, directory, hosts, image, registry, trusted }
})

it.live(
  "a pull over TLS: by a mirror and a private authority of certs.d, with credentials, and a message without either",
  () =>
    Effect.gen(function* () {
      const { hosts, image, pull, registry, trusted } = yield* setUp
      const server = `https://127.0.0.1:${registry.port}`
      // Without the authority: the system's own do not know this one.
      hosts("untrusted.example", `[host."${server}"]\n`)
      const untrusted = yield* Effect.flip(pull("untrusted.example/team/app:1"))
      assert.match(untrusted.message, /x509: certificate signed by unknown authority/u)
      assert.deepStrictEqual(registry.requests, [])
      // What is in certs.d counts at the next pull.
      hosts("registry.example", trusted)
      assert.strictEqual(yield* pull("registry.example/team/app:1"), image.configDigest)
      assert.strictEqual(yield* pull(`registry.example/team/app@${image.manifestDigest}`), image.configDigest)
      const wrong = `registry.example/team/app@sha256:${"0".repeat(64)}`
      assert.match((yield* Effect.flip(pull(wrong))).message, /not found/u)
      // A name that leads nowhere: the mirror is asked, and nobody else has to be.
      hosts("docker.io", `server = "${server}"\n${trusted}`)
      assert.strictEqual(yield* pull("docker.io/other/app:1"), image.configDigest)
      // Credentials.
      const refused = yield* Effect.flip(pull("registry.example/private/app:1"))
      assert.match(refused.message, /no basic auth credentials/u)
      const bad = yield* Effect.flip(pull("registry.example/private/app:1", { ...LOGIN, password: "x" }))
      assert.match(bad.message, /401 Unauthorized|authorization failed|access denied/u)
      assert.strictEqual(yield* pull("registry.example/private/app:1", LOGIN), image.configDigest)
    }).pipe(Effect.scoped, Effect.timeout("4 minutes")),
  { timeout: 300_000 },
)

it.live(
  "a policy refuses what is not pinned or not allowed, and says so; whatever it cannot read, it refuses",
  () =>
    Effect.gen(function* () {
      const { directory, hosts, image, pull, registry, trusted, verifiers } = yield* setUp
      hosts("registry.example", trusted)
      hosts("registry.example_5000_", trusted)
      hosts("elsewhere.example", trusted)
      const pinned = (name: string) => `${name}@${image.manifestDigest}`
      const team = "registry.example/team/app"
      // Without a directory of verifiers nothing is asked: the reference distro.
      assert.strictEqual(yield* pull(`${team}:1`), image.configDigest)

      // The program of the image, with files of this test in place of /lib/kios/image-policy and /etc/kios/image-policy.
      const [ofImage, ofNode] = [
        path.join(directory, "policy-of-image"),
        path.join(directory, "policy-of-node"),
      ]
      const source = path.join(import.meta.dirname, "../../components/image-policy/image-policy.c")
      fs.mkdirSync(verifiers)
      const { run } = yield* CommandRunner
      const compiled = yield* run({
        command: "gcc",
        args: "-Os -Wall -Wextra -Werror -static"
          .split(" ")
          .concat([`-DIMAGE_POLICY="${ofImage}"`, `-DNODE_POLICY="${ofNode}"`, source])
          .concat(["-o", path.join(verifiers, "image-policy")]),
        env: { PATH: process.env["PATH"] },
      })
      assert.strictEqual(compiled.exit, 0, compiled.tail.join("\n"))
      const refusal = (name: string) => Effect.map(Effect.flip(pull(name)), ({ message }) => message)
      const asked = registry.requests.length
      assert.match(
        yield* refusal(`${team}:1`),
        /blocked pull of registry\.example\/team\/app:1 .*there is no image policy/u,
      )

      fs.writeFileSync(ofImage, "# ours\nrequire digest\n\n  allow registry.example/team/  \r\n")
      assert.match(
        yield* refusal(`${team}:1`),
        /image-policy rejected image \(exit code 1\): it is not pinned by digest/u,
      )
      const list = /it is not on the allow-list of .*policy-of-image/u
      assert.match(yield* refusal(pinned("registry.example/other/app")), list)
      assert.match(yield* refusal(pinned("elsewhere.example/team/app")), list)
      assert.strictEqual(yield* pull(pinned(team)), image.configDigest)
      // Nothing but manifests was fetched of what was refused.
      assert.isFalse(registry.requests.slice(asked).some((line) => line.includes("/other/app/blobs/")))

      // A registry is not another one that has a port more, and a repository not one whose name goes on.
      fs.writeFileSync(ofImage, `allow registry.example\nallow elsewhere.example/team/ap\n`)
      assert.strictEqual(yield* pull("registry.example/other/app:1"), image.configDigest)
      assert.match(yield* refusal("registry.example:5000/team/app:1"), list)
      assert.match(yield* refusal("elsewhere.example/team/app:1"), list)

      // The node's policy narrows the image's, and does not widen it.
      fs.writeFileSync(ofNode, `allow ${team}\nallow elsewhere.example/\n`)
      assert.strictEqual(yield* pull(`${team}:1`), image.configDigest)
      assert.match(
        yield* refusal("registry.example/other/app:1"),
        /not on the allow-list of .*policy-of-node/u,
      )
      assert.match(yield* refusal("elsewhere.example/team/app:1"), list)

      // What is not understood lets nothing pass.
      for (const [policy, reason] of [
        ["allow a b\n", "line 1 of the image policy .* is not understood"],
        [`allow ${team}\nrequire digests\n`, "line 2 of the image policy .* is not understood"],
        [`allow ${team}\n\0\n`, "is no text"],
        [`allow ${team}\n${"#".repeat(65_536)}`, "cannot be read: File too large"],
      ] as const) {
        fs.writeFileSync(ofNode, policy)
        assert.match(yield* refusal(`${team}:1`), new RegExp(reason, "u"))
      }
      fs.rmSync(ofNode)
      fs.mkdirSync(ofNode)
      assert.match(yield* refusal(`${team}:1`), /cannot be read: Is a directory/u)
    }).pipe(Effect.provide(CommandRunner.layer), Effect.scoped, Effect.timeout("4 minutes")),
  { timeout: 300_000 },
)
