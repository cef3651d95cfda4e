// What the client promises, asserted on the fake and on the real containerd alike.
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Queue, type Scope, Stream } from "effect"
import * as fs from "node:fs"
import {
  kubernetesNamespace,
  make,
  pinnedImageLabels,
} from "@kios/stages-runtime/containerd/ContainerdClient"
import { type Grpc, makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import * as Images from "@kios/stages-runtime/containerd/Images"
import { awaitReady } from "@kios/stages-runtime/containerd/Probe"
import {
  BinaryWriter,
  encodeAny,
  text,
  visitFields,
  writeBytes,
  writeMap,
  writeString,
} from "@kios/stages-runtime/containerd/Proto"
import type { TaskStart } from "@kios/stages-runtime/containerd/TaskStarts"
import { tempDir } from "./support/http2Server.ts"
import { writeOciArchive } from "./support/ociArchive.ts"

/** A containerd under test. */
export interface Subject {
  readonly address: string
  /** Kills it and starts it again on the same socket and state. */
  readonly restart: Effect.Effect<void>
}

const namespace = kubernetesNamespace
const within = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.timeout(effect, "30 seconds")

/** Creates a container record, as CRI does before it starts a task. */
export const createContainer = (grpc: Grpc, id: string, labels: Record<string, string>) => {
  const container = writeMap(writeString(new BinaryWriter(), 1, id), 2, labels)
  writeBytes(container, 4, writeString(new BinaryWriter(), 1, "io.containerd.runc.v2").finish())
  writeBytes(
    container,
    5,
    encodeAny({
      typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec",
      value: Buffer.from("{}"),
    }),
  )
  const request = writeBytes(new BinaryWriter(), 1, container.finish()).finish()
  return grpc.unary("/containerd.services.containers.v1.Containers/Create", request, () => undefined, {
    namespace,
  })
}

/** Publishes a task event, as the task service does. */
export const publishTask = (grpc: Grpc, what: "Start" | "Delete", id: string, pid: number) => {
  const event = writeString(new BinaryWriter(), 1, id).tag(2, 0).uint32(pid).finish()
  const request = writeString(new BinaryWriter(), 1, `/tasks/${what.toLowerCase()}`)
  writeBytes(request, 2, encodeAny({ typeUrl: `containerd.events.Task${what}`, value: event }))
  return grpc.unary("/containerd.services.events.v1.Events/Publish", request.finish(), () => undefined, {
    namespace,
  })
}

/** Names of the images that CRI lists, with their pin. */
export const criImages = (grpc: Grpc) =>
  grpc.unary("/runtime.v1.ImageService/ListImages", new Uint8Array(0), (message) => {
    const images: Array<{ readonly tags: ReadonlyArray<string>; readonly pinned: boolean }> = []
    visitFields(message, (f) => {
      const tags: Array<string> = []
      let pinned = false
      visitFields(f.bytes, (i) => {
        if (i.number === 2) tags.push(text(i))
        if (i.number === 8) pinned = i.varint === 1n
      })
      images.push({ tags, pinned })
    })
    return images
  })

/** Collects what has started into a queue, in the background. */
const follow = (starts: Stream.Stream<TaskStart>) =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<TaskStart>()
    const fiber = yield* Effect.forkScoped(Stream.runForEach(starts, (s) => Queue.offer(queue, s)))
    return { next: Queue.take(queue), stop: Fiber.interrupt(fiber) }
  })

// Publishes a start until it is seen: only then is the subscription known to be up.
const awaitSubscription = (grpc: Grpc, next: Effect.Effect<TaskStart>, id: string) =>
  Effect.raceFirst(
    next,
    publishTask(grpc, "Start", id, 1).pipe(Effect.ignore, Effect.delay("50 millis"), Effect.forever),
  )

export const contract = (subject: Effect.Effect<Subject, never, Scope.Scope>) => {
  const test = (name: string, body: (s: Subject) => Effect.Effect<void, unknown, Scope.Scope>) =>
    it.live(name, () => within(Effect.flatMap(subject, body)))

  test("is ready: health, version, CRI", ({ address }) =>
    Effect.gen(function* () {
      const ready = yield* awaitReady(address)
      assert.strictEqual(ready.name, "containerd")
      assert.strictEqual(ready.apiVersion, "v1")
      const client = yield* make(address)
      assert.strictEqual(yield* client.health, "SERVING")
      assert.match((yield* client.version).version, /^v?2\./)
    }))

  test("refusals carry code, method and socket", ({ address }) =>
    Effect.gen(function* () {
      const grpc = yield* makeGrpc(address)
      const nothing = new Uint8Array(0)
      const unknown = yield* Effect.flip(grpc.unary("/kios.Nobody/Ask", nothing, () => undefined))
      assert.strictEqual(unknown.code, "UNIMPLEMENTED")
      assert.include(unknown.message, address)
      assert.include(unknown.message, "/kios.Nobody/Ask")
      const bare = yield* Effect.flip(grpc.unary(Images.list, nothing, () => undefined))
      assert.strictEqual(bare.code, "FAILED_PRECONDITION")
      assert.include(bare.reason, "namespace is required")
      const absent = yield* Effect.flip(
        grpc.unary(
          "/containerd.services.containers.v1.Containers/Get",
          writeString(new BinaryWriter(), 1, "absent").finish(),
          () => undefined,
          { namespace },
        ),
      )
      assert.strictEqual(absent.code, "NOT_FOUND")
    }))

  test("imports an archive: names, digest, labels, visible and pinned in CRI", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const name = "kios.test/app:1"
      const digest = writeOciArchive(`${dir}/app.tar`, { name, layerBytes: 300_000 })
      const saved = yield* client.importImage({ archive: `${dir}/app.tar`, labels: pinnedImageLabels })
      assert.deepStrictEqual(saved, [{ name, digest }])
      const grpc = yield* makeGrpc(address)
      // CRI learns of images by events, shortly after.
      const listed = yield* criImages(grpc).pipe(
        Effect.repeat({ until: (all) => all.some((i) => i.tags.includes(name)) }),
        Effect.timeout("10 seconds"),
      )
      assert.isTrue(listed.find((i) => i.tags.includes(name))?.pinned)
      const image = (yield* client.images).find((i) => i.name === name)
      assert.strictEqual(image?.digest, digest)
      assert.strictEqual(image?.labels["io.cri-containerd.pinned"], "pinned")
      assert.strictEqual(image?.labels["io.cri-containerd.image"], "managed")
      // Again: an import of what is there is no error.
      assert.lengthOf(yield* client.importImage({ archive: `${dir}/app.tar`, labels: pinnedImageLabels }), 1)
    }))

  test("what is there by name, digest and labels, and is whole, is not sent again", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const archive = `${dir}/agent.tar`
      const ensure = client.importImage({ archive, labels: pinnedImageLabels, unlessThere: true })
      const digest = writeOciArchive(archive, { name: "kios.test/agent:1", ref: "1", layerBytes: 70_000 })
      assert.deepStrictEqual(yield* ensure, [{ name: "kios.test/agent:1", digest }])
      assert.deepStrictEqual(yield* ensure, [{ name: "kios.test/agent:1", digest, wasThere: true }])
      // Other content under the same name, of the same size.
      const other = writeOciArchive(archive, { name: "kios.test/agent:1", ref: "2", layerBytes: 70_001 })
      assert.deepStrictEqual(yield* ensure, [{ name: "kios.test/agent:1", digest: other }])
      // The same content under another name.
      writeOciArchive(archive, { name: "kios.test/agent:2", layerBytes: 70_001 })
      assert.deepStrictEqual(yield* ensure, [{ name: "kios.test/agent:2", digest: other }])
      // An image that a pull brought has not the labels.
      const labels = { ...pinnedImageLabels, "kios.test/more": "yes" }
      const more = client.importImage({ archive, labels, unlessThere: true })
      assert.deepStrictEqual(yield* more, [{ name: "kios.test/agent:2", digest: other }])
      // Only a tag: named after the file.
      const tagged = writeOciArchive(archive, { ref: "3.10", layerBytes: 3 })
      assert.deepStrictEqual(yield* ensure, [{ name: "localhost/agent:3.10", digest: tagged }])
      assert.deepStrictEqual(yield* ensure, [
        { name: "localhost/agent:3.10", digest: tagged, wasThere: true },
      ])
    }))

  test("layers of all sizes, one that is named twice, and two names of one image", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const archive = `${dir}/sized.tar`
      // With the tar around it: a piece and less, pieces to the byte, pieces and some bytes, two of its digest.
      const sizes = [0, 1, 256 * 1024 - 2048, 256 * 1024, 1024 * 1024 + 5, 3 * 1024 * 1024 + 5]
      for (const layerBytes of sizes) {
        const name = `kios.test/sized:${layerBytes}`
        const digest = writeOciArchive(archive, { name, layerBytes, twice: layerBytes === 1 })
        const imported = client.importImage({ archive, labels: pinnedImageLabels, unlessThere: true })
        assert.deepStrictEqual(yield* imported, [{ name, digest }])
        assert.deepStrictEqual(yield* imported, [{ name, digest, wasThere: true }])
      }
      // The same content under a second name: no blob is sent, the record is.
      const digest = writeOciArchive(archive, { name: "kios.test/sized:again", layerBytes: 256 * 1024 })
      assert.deepStrictEqual(yield* client.importImage({ archive }), [
        { name: "kios.test/sized:again", digest },
      ])
      // CRI adds a record of its own, named after the config.
      const records = (yield* client.images).filter(
        (image) => image.digest === digest && image.name.startsWith("kios.test/"),
      )
      assert.deepStrictEqual(records.map(({ name }) => name).sort(), [
        `kios.test/sized:${256 * 1024}`,
        "kios.test/sized:again",
      ])
    }))

  test("what cannot be written blob by blob is imported all the same", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const archive = `${dir}/other.tar`
      const imported = client.importImage({ archive, labels: pinnedImageLabels, unlessThere: true })
      for (const [name, options] of [
        ["kios.test/nested:1", { nested: true, layerBytes: 21 }],
        ["kios.test/pax:1", { pax: true, layerBytes: 22 }],
      ] as const) {
        const digest = writeOciArchive(archive, { name, ...options })
        assert.deepStrictEqual(yield* imported, [{ name, digest }])
        assert.deepStrictEqual(yield* imported, [{ name, digest, wasThere: true }])
      }
    }))

  test("what an index claims of a manifest's size does no harm", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const archive = `${dir}/claims.tar`
      for (const claims of [1.5, 0, -1, "many", 1e300]) {
        const name = `kios.test/claims:${String(claims).replace(/[^\w.]/gu, "x")}`
        const digest = writeOciArchive(archive, { name, claims, layerBytes: 31 })
        const result = yield* Effect.result(client.importImage({ archive }))
        if (result._tag === "Failure") assert.strictEqual(result.failure._tag, "ImageImportError")
        else assert.deepStrictEqual(result.success, [{ name, digest }])
      }
    }))

  test("an image with only a tag is named after the prefix or the file", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      writeOciArchive(`${dir}/Node Logs.oci.tar`, { ref: "3.10" })
      const [byFile] = yield* client.importImage({ archive: `${dir}/Node Logs.oci.tar` })
      assert.strictEqual(byFile?.name, "localhost/node-logs-oci:3.10")
      const [byPrefix] = yield* client.importImage({
        archive: `${dir}/Node Logs.oci.tar`,
        namePrefix: "kios.test/logs",
      })
      assert.strictEqual(byPrefix?.name, "kios.test/logs:3.10")
    }))

  test("a bad archive: one error that names it, and the server stays healthy", ({ address }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const client = yield* make(address)
      const before = (yield* client.images).length
      const file = (name: string) => `${dir}/${name}`
      writeOciArchive(file("whole.tar"), { name: "kios.test/bad:1", layerBytes: 500_000 })
      const whole = fs.readFileSync(file("whole.tar"))
      fs.writeFileSync(file("truncated.tar"), whole.subarray(0, 200_000))
      fs.writeFileSync(file("garbage.tar"), Buffer.alloc(300_000, 0x5a))
      writeOciArchive(file("layerless.tar"), { name: "kios.test/bad:2", withoutLayer: true, layerBytes: 777 })
      writeOciArchive(file("flipped.tar"), { name: "kios.test/bad:3", layerBytes: 400_000 })
      const flipped = fs.openSync(file("flipped.tar"), "r+")
      fs.writeSync(flipped, "X", fs.fstatSync(flipped).size - 100_000)
      fs.closeSync(flipped)
      writeOciArchive(file("nameless.tar"), {})
      fs.writeFileSync(file("empty.tar"), "")
      const expected: Record<string, RegExp> = {
        "truncated.tar": /unexpected EOF/,
        "garbage.tar": /invalid tar header/,
        "layerless.tar": /damaged: layer sha256:.*not found/,
        "flipped.tar": /damaged: layer sha256:.* is not what its name says/,
        "nameless.tar": /no image in it has a name/,
        "empty.tar": /the file is empty/,
        "absent.tar": /ENOENT/,
        ".": /not a regular file/,
      }
      for (const [name, reason] of Object.entries(expected)) {
        const error = yield* Effect.flip(
          client.importImage({ archive: file(name), labels: pinnedImageLabels }),
        )
        assert.strictEqual(error._tag, "ImageImportError")
        assert.include(error.message, file(name))
        assert.match(error.reason, reason)
        assert.strictEqual(yield* client.health, "SERVING")
      }
      assert.lengthOf(yield* client.images, before)
    }))

  test("starts are delivered once, with the pod's labels", ({ address }) =>
    Effect.gen(function* () {
      const grpc = yield* makeGrpc(address)
      const client = yield* make(address)
      const id = `pod-${process.hrtime.bigint()}`
      yield* createContainer(grpc, id, {
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.container.name": "nginx",
        "io.cri-containerd.kind": "container",
      })
      const started = yield* follow(client.taskStarts)
      // Published many times until seen; delivered once.
      const first = yield* awaitSubscription(grpc, started.next, id)
      assert.include(first, {
        containerId: id,
        pid: 1,
        podName: "web",
        podNamespace: "default",
        containerName: "nginx",
        kind: "container",
      })
      assert.isTrue(first.startedAt !== undefined && first.startedAt > 0n)
      yield* publishTask(grpc, "Start", id, 1)
      yield* publishTask(grpc, "Start", "deleted-already", 7)
      const second = yield* started.next
      assert.include(second, { containerId: "deleted-already", pid: 7, podName: undefined, kind: undefined })
      assert.deepStrictEqual(second.labels, {})
      // A task that was deleted is forgotten, so the same key is a new start.
      yield* publishTask(grpc, "Delete", id, 1)
      yield* publishTask(grpc, "Start", id, 1)
      assert.strictEqual((yield* started.next).containerId, id)
    }))

  test("recovers from a restart: calls, imports and the subscription", ({ address, restart }) =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const grpc = yield* makeGrpc(address)
      const client = yield* make(address)
      const started = yield* follow(client.taskStarts)
      yield* awaitSubscription(grpc, started.next, `before-${process.hrtime.bigint()}`)
      writeOciArchive(`${dir}/a.tar`, { name: "kios.test/restart:1" })
      yield* client.importImage({ archive: `${dir}/a.tar` })
      yield* restart
      yield* awaitReady(address)
      assert.strictEqual(yield* client.health, "SERVING")
      assert.isTrue((yield* client.images).some((i) => i.name === "kios.test/restart:1"))
      const id = `after-${process.hrtime.bigint()}`
      assert.strictEqual((yield* awaitSubscription(grpc, started.next, id)).containerId, id)
    }))

  test("fails with UNAVAILABLE and the errno while nobody listens", ({ address }) =>
    Effect.gen(function* () {
      const client = yield* make(`${address}.absent`)
      const error = yield* Effect.flip(client.health)
      assert.strictEqual(error.code, "UNAVAILABLE")
      assert.include(error.message, "ENOENT")
    }))
}
