// The contract on the real containerd, as root, with its root and state in a temporary directory; and what
// only the real one can show: containers that run.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { kubernetesNamespace, make } from "@kios/stages-runtime/containerd/ContainerdClient"
import { type Grpc, makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import {
  BinaryWriter,
  encodeAny,
  writeBytes,
  writeMap,
  writeString,
  writeTrue,
} from "@kios/stages-runtime/containerd/Proto"
import * as Content from "@kios/stages-runtime/containerd/Content"
import { checkImage } from "@kios/stages-runtime/containerd/ImageCheck"
import * as Leases from "@kios/stages-runtime/containerd/Leases"
import * as Tasks from "@kios/stages-runtime/containerd/Tasks"
import type { TaskStart } from "@kios/stages-runtime/containerd/TaskStarts"
import { contract } from "./contract.ts"
import { tempDir } from "./support/http2Server.ts"
import { writeOciArchive } from "./support/ociArchive.ts"
import { containerdBinary, startContainerd } from "./support/realContainerd.ts"

const binary = containerdBinary()
const namespace = kubernetesNamespace
const str = (n: number, v: string) => writeString(new BinaryWriter(), n, v)

const spec = (id: string, args: ReadonlyArray<string>) => ({
  ociVersion: "1.2.0",
  process: { args, cwd: "/", user: { uid: 0, gid: 0 }, env: ["PATH=/bin:/usr/bin"] },
  root: { path: "rootfs", readonly: true },
  mounts: [
    { destination: "/proc", type: "proc", source: "proc" },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
  ],
  linux: { namespaces: [{ type: "mount" }, { type: "pid" }], cgroupsPath: `/kios-test-${id}` },
})
/** Runs a program in a container whose root is the host's, read-only; killed and deleted with the scope. */
const runContainer = (
  grpc: Grpc,
  id: string,
  labels: Record<string, string>,
  args: ReadonlyArray<string> = ["/bin/sleep", "600"],
) => {
  const call = (method: string, w: BinaryWriter) =>
    grpc.unary(method, w.finish(), () => undefined, { namespace })
  const tasks = "/containerd.services.tasks.v1.Tasks"
  const container = writeMap(str(1, id), 2, labels)
  writeBytes(container, 4, str(1, "io.containerd.runc.v2").finish())
  const json = Buffer.from(JSON.stringify(spec(id, args)))
  const typeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
  writeBytes(container, 5, encodeAny({ typeUrl, value: json }))
  const rootfs = writeString(
    writeString(writeString(writeString(new BinaryWriter(), 1, "bind"), 2, "/"), 4, "bind"),
    4,
    "ro",
  )
  return Effect.acquireRelease(
    Effect.gen(function* () {
      yield* call(
        "/containerd.services.containers.v1.Containers/Create",
        writeBytes(new BinaryWriter(), 1, container.finish()),
      )
      yield* call(`${tasks}/Create`, writeBytes(str(1, id), 3, rootfs.finish()))
      yield* call(`${tasks}/Start`, str(1, id))
    }),
    () =>
      Effect.gen(function* () {
        // It may have ended: its root, which is the host's, must be unmounted all the same.
        yield* Effect.ignore(call(`${tasks}/Kill`, str(1, id).tag(3, 0).uint32(9)))
        yield* call(`${tasks}/Delete`, str(1, id)).pipe(Effect.retry({ times: 200 }))
        yield* call("/containerd.services.containers.v1.Containers/Delete", str(1, id))
      }).pipe(Effect.ignore),
  )
}

describe.skipIf(binary === undefined)("real containerd", () => {
  contract(
    Effect.gen(function* () {
      const containerd = yield* startContainerd(binary!, yield* tempDir)
      return { address: containerd.address, restart: containerd.restart }
    }),
  )

  /** A containerd in a directory of its own, and both ways to talk to it. */
  const fresh = Effect.gen(function* () {
    const directory = yield* tempDir
    const { address } = yield* startContainerd(binary!, directory)
    return { directory, grpc: yield* makeGrpc(address), client: yield* make(address) }
  })

  /** What a garbage collection leaves; one runs before the answer to a lease's removal that asks for it. */
  const collected = Effect.fnUntraced(function* (grpc: Grpc) {
    const call = (method: string, message: Uint8Array) =>
      grpc.unary(method, message, () => undefined, { namespace, timeout: "20 seconds" })
    yield* call(Leases.create, Leases.encodeCreateRequest("kios-test-gc", new Date(Date.now() + 3_600_000)))
    yield* call(Leases.remove, writeTrue(str(1, "kios-test-gc"), 2).finish())
  })

  const leases = (grpc: Grpc) =>
    grpc.unary("/containerd.services.leases.v1.Leases/List", new Uint8Array(0), (m) => m.length, {
      namespace,
    })

  it.live("what was imported outlives a garbage collection, and no lease is left", () =>
    Effect.gen(function* () {
      const { client, directory, grpc } = yield* fresh
      const archive = `${directory}/kept.tar`
      const digest = writeOciArchive(archive, { name: "kios.test/kept:1", layerBytes: 600_000 })
      yield* client.importImage({ archive })
      assert.strictEqual(yield* leases(grpc), 0)
      yield* collected(grpc)
      yield* checkImage(grpc, namespace, digest)
    }).pipe(Effect.scoped),
  )

  it.live(
    "a manifest that was there without its labels gets them, or the next collection would take its layers",
    () =>
      Effect.gen(function* () {
        const { client, directory, grpc } = yield* fresh
        const archive = `${directory}/bare.tar`
        const digest = writeOciArchive(archive, { name: "kios.test/bare:1", layerBytes: 600_000 })
        yield* client.importImage({ archive })
        // As another client may leave it, or a node that lost power in the middle of an import.
        const labels = Object.fromEntries(
          ["config", "l.0"].map((key) => [`containerd.io/gc.ref.content.${key}`, ""]),
        )
        yield* grpc.unary(Content.update, Content.encodeUpdateRequest(digest, labels), () => undefined, {
          namespace,
        })
        yield* collected(grpc)
        assert.strictEqual((yield* Effect.flip(checkImage(grpc, namespace, digest)))._tag, "ImageIncomplete")
        yield* client.importImage({ archive, unlessThere: true })
        yield* collected(grpc)
        yield* checkImage(grpc, namespace, digest)
      }).pipe(Effect.scoped),
  )

  it.live("two imports at once of a layer that both have: one is damaged, the other is whole", () =>
    Effect.gen(function* () {
      const { client, directory, grpc } = yield* fresh
      // One layer, two manifests: of the second one the config is not what its name says.
      const [good, bad] = [`${directory}/good.tar`, `${directory}/bad.tar`]
      const digest = writeOciArchive(good, { name: "kios.test/shared:1", layerBytes: 2_000_000 })
      writeOciArchive(bad, { name: "kios.test/shared:2", layerBytes: 2_000_000, twice: true })
      const bytes = fs.readFileSync(bad)
      bytes.write("X", bytes.indexOf('"architecture"') + 1)
      fs.writeFileSync(bad, bytes)
      const [one, two] = yield* Effect.all(
        [
          Effect.result(client.importImage({ archive: good })),
          Effect.result(client.importImage({ archive: bad })),
        ],
        { concurrency: 2 },
      )
      assert.deepStrictEqual([one._tag, two._tag], ["Success", "Failure"])
      yield* collected(grpc)
      yield* checkImage(grpc, namespace, digest)
    }).pipe(Effect.scoped),
  )

  it.live(
    "containers that run already and new ones come once each, also across a restart of containerd",
    () =>
      Effect.gen(function* () {
        const containerd = yield* startContainerd(binary!, yield* tempDir)
        const grpc = yield* makeGrpc(containerd.address)
        const client = yield* make(containerd.address)
        const label = { "io.kubernetes.pod.name": "web", "io.cri-containerd.kind": "sandbox" }
        yield* runContainer(grpc, "first", label)
        const seen = yield* Queue.unbounded<TaskStart>()
        yield* Effect.forkScoped(Stream.runForEach(client.taskStarts, (s) => Queue.offer(seen, s)))
        const first = yield* Queue.take(seen)
        assert.include(first, { containerId: "first", podName: "web", kind: "sandbox", startedAt: undefined })
        // A task has started when runc is about to execute its program.
        const exe = yield* Effect.sync(() => fs.readlinkSync(`/proc/${first.pid}/exe`)).pipe(
          Effect.tap((seen) => (seen === "/runc" ? Effect.sleep("10 millis") : Effect.void)),
          Effect.repeat({ until: (seen: string) => seen !== "/runc" }),
        )
        assert.strictEqual(exe, fs.realpathSync("/bin/sleep"))
        yield* runContainer(grpc, "second", {})
        const second = yield* Queue.take(seen)
        assert.strictEqual(second.containerId, "second")
        assert.isDefined(second.startedAt)
        yield* containerd.restart
        yield* runContainer(grpc, "third", {})
        // Neither of the first two again, though both still run.
        assert.strictEqual((yield* Queue.take(seen)).containerId, "third")
        const running = yield* grpc.unary(Tasks.list, new Uint8Array(0), Tasks.decodeListResponse, {
          namespace,
        })
        assert.deepStrictEqual(running.map((t) => `${t.containerId} ${t.status}`).sort(), [
          "first RUNNING",
          "second RUNNING",
          "third RUNNING",
        ])
        assert.strictEqual(yield* Queue.size(seen), 0)
      }).pipe(Effect.scoped, Effect.timeout("60 seconds")),
  )

  it.live(
    "what is left of pods ends: containers before their sandbox, and who does not is killed and named",
    () =>
      Effect.gen(function* () {
        const dir = yield* tempDir
        const containerd = yield* startContainerd(binary!, dir)
        const grpc = yield* makeGrpc(containerd.address)
        const client = yield* make(containerd.address)
        // runc keeps its state by id below /run, where a run that was killed may have left some.
        const id = (name: string) => `${name}-${path.basename(dir)}`
        const pod = (kind: string, name: string) => ({
          "io.cri-containerd.kind": kind,
          "io.kubernetes.pod.namespace": "default",
          "io.kubernetes.pod.name": "web",
          "io.kubernetes.container.name": name,
        })
        const obeys = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
        yield* runContainer(grpc, id("pause"), pod("sandbox", ""), obeys)
        yield* runContainer(grpc, id("good"), pod("container", "good"), obeys)
        // The first process of a container ignores what it has no handler for.
        yield* runContainer(grpc, id("bad"), pod("container", "bad"))
        const remarks: Array<string> = []
        const running = grpc
          .unary(Tasks.list, new Uint8Array(0), Tasks.decodeListResponse, { namespace })
          .pipe(
            Effect.map((tasks) =>
              tasks.filter(({ status }) => status === "RUNNING").map(({ containerId }) => containerId),
            ),
          )
        yield* client.stopTasks({
          grace: "2 seconds",
          shutdown: {
            grace: (period) => Effect.interruptible(Effect.sleep(period)),
            // Its network is there for who takes until the very end.
            remark: (text) =>
              Effect.map(
                Effect.orDie(running),
                (left) => void remarks.push(`${text}; running: ${left.toSorted().join(", ")}`),
              ),
          },
        })
        assert.deepStrictEqual(remarks, [`killing default/web bad; running: ${id("bad")}, ${id("pause")}`])
        assert.deepStrictEqual(yield* running, [])
      }).pipe(Effect.scoped, Effect.timeout("60 seconds")),
  )

  it.live("killed during an import: an error that names the archive, then all is well again", () =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const containerd = yield* startContainerd(binary!, dir)
      const client = yield* make(containerd.address)
      writeOciArchive(`${dir}/a.tar`, { name: "kios.test/big:1", layerBytes: 60_000_000 })
      const ingest = `${dir}/root/io.containerd.content.v1.content/ingest`
      const [error] = yield* Effect.all(
        [
          Effect.flip(client.importImage({ archive: `${dir}/a.tar` })),
          // The first blob that is on its way shows as a directory in the content store.
          Effect.sync(() => fs.existsSync(ingest) && fs.readdirSync(ingest).length > 0).pipe(
            Effect.delay("1 millis"),
            Effect.repeat({ until: (on) => on }),
            Effect.andThen(containerd.kill),
          ),
        ],
        { concurrency: 2 },
      )
      assert.include(error.message, `${dir}/a.tar`)
      assert.match(error.reason, /UNAVAILABLE|CANCELLED/)
      yield* containerd.start
      assert.lengthOf(yield* client.importImage({ archive: `${dir}/a.tar` }), 1)
    }).pipe(Effect.scoped, Effect.timeout("60 seconds")),
  )

  it.live("an import that is interrupted leaves nothing behind and can be done again", () =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const containerd = yield* startContainerd(binary!, dir)
      const client = yield* make(containerd.address)
      writeOciArchive(`${dir}/a.tar`, { name: "kios.test/big:1", layerBytes: 60_000_000 })
      yield* Effect.timeout(client.importImage({ archive: `${dir}/a.tar` }), "20 millis").pipe(Effect.flip)
      assert.deepStrictEqual(yield* client.images, [])
      assert.strictEqual(yield* client.health, "SERVING")
      assert.lengthOf(yield* client.importImage({ archive: `${dir}/a.tar` }), 1)
    }).pipe(Effect.scoped, Effect.timeout("60 seconds")),
  )

  it.live("unpacks for a platform; an unknown snapshotter is an error", () =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      const containerd = yield* startContainerd(binary!, dir)
      const client = yield* make(containerd.address)
      const architecture = process.arch === "arm64" ? "arm64" : "amd64"
      writeOciArchive(`${dir}/a.tar`, { name: "kios.test/unpacked:1" })
      const platform = { os: "linux", architecture }
      yield* client.importImage({ archive: `${dir}/a.tar`, unpack: { platform, snapshotter: "overlayfs" } })
      const snapshots = fs.readdirSync(`${dir}/root/io.containerd.snapshotter.v1.overlayfs/snapshots`)
      assert.lengthOf(snapshots, 1)
      const wrong = client.importImage({
        archive: `${dir}/a.tar`,
        unpack: { platform, snapshotter: "nosuch" },
      })
      assert.include((yield* Effect.flip(wrong)).reason, "unpack platform")
    }).pipe(Effect.scoped, Effect.timeout("60 seconds")),
  )
})
