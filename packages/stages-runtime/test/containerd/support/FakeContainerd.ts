// An in-memory containerd: as much of it as the client uses. test/containerd/contract.ts holds it to the real one.
import { Effect } from "effect"
import type * as http2 from "node:http2"
import {
  BinaryWriter,
  decodeAny,
  encodeAny,
  readMapEntry,
  text,
  visitFields,
  writeBytes,
  writeMap,
  writeString,
  writeTrue,
} from "@kios/stages-runtime/containerd/Proto"
import { onMessages, refuse, respond, serve } from "./http2Server.ts"
import { sha256 } from "./ociArchive.ts"

interface Image {
  readonly name: string
  readonly labels: Record<string, string>
  readonly digest: string
}
interface Waiting {
  readonly received: Array<Buffer>
  ended: boolean
  wake: () => void
  readonly send: (m: Uint8Array) => void
  readonly close: () => void
}

const str = (n: number, v: string) => writeString(new BinaryWriter(), n, v)
const field = (message: Uint8Array, number: number): Uint8Array => {
  let found: Uint8Array = new Uint8Array(0)
  visitFields(message, (f) => {
    if (f.number === number) found = f.bytes
  })
  return found
}
const stringField = (message: Uint8Array, number: number) => Buffer.from(field(message, number)).toString()

const imageMessage = (i: Image) =>
  writeBytes(writeMap(str(1, i.name), 2, i.labels), 3, str(2, i.digest).finish()).finish()

/** Reads what an import needs out of a tar: the names and digests in index.json, after checking that all is there. */
const readArchive = (tar: Buffer, prefix: string, blobs: Map<string, Buffer>) => {
  const files = new Map<string, Buffer>()
  let at = 0
  while (at + 512 <= tar.length && tar[at] !== 0) {
    const size = Number.parseInt(tar.toString("latin1", at + 124, at + 135), 8)
    if (tar.toString("latin1", at + 257, at + 262) !== "ustar")
      throw new Error("archive/tar: invalid tar header")
    if (at + 512 + size > tar.length) throw new Error("unexpected EOF")
    files.set(tar.toString("latin1", at, tar.indexOf(0, at)), tar.subarray(at + 512, at + 512 + size))
    at += 512 + Math.ceil(size / 512) * 512
  }
  const index = files.get("index.json")
  if (index === undefined) throw new Error("unrecognized image format")
  for (const blob of files.values()) blobs.set(`sha256:${sha256(blob)}`, blob)
  const named: Array<readonly [string, string]> = []
  for (const m of JSON.parse(index.toString()).manifests) {
    const manifest = files.get(`blobs/sha256/${m.digest.slice(7)}`)
    if (manifest === undefined || `sha256:${sha256(manifest)}` !== m.digest)
      throw new Error(`${m.digest}: not found`)
    const ref = m.annotations["org.opencontainers.image.ref.name"]
    const name =
      m.annotations["io.containerd.image.name"] ?? (ref === undefined ? undefined : `${prefix}:${ref}`)
    if (name !== undefined) named.push([name, m.digest])
  }
  return named
}

const grant = (bytes: number) =>
  encodeAny({
    typeUrl: "containerd.types.transfer.WindowUpdate",
    value: new BinaryWriter().tag(1, 0).int32(bytes).finish(),
  })

const list = (messages: Iterable<Uint8Array>) => {
  const w = new BinaryWriter()
  for (const m of messages) writeBytes(w, 1, m)
  return w.finish()
}

/** Starts one on `address`. State outlives `stop` and `start`, as containerd's does. */
export const makeFakeContainerd = (address: string) =>
  Effect.gen(function* () {
    const images = new Map<string, Image>()
    const blobs = new Map<string, Buffer>()
    const namespaces = new Set<string>()
    const leases = new Set<string>()
    const containers = new Map<string, Uint8Array>()
    const streams = new Map<string, Waiting>()
    const subscribers = new Set<{
      readonly topics: ReadonlyArray<string>
      readonly send: (m: Uint8Array) => void
    }>()

    const openStream = (stream: http2.ServerHttp2Stream) => {
      const answer = respond(stream)
      let mine: Waiting | undefined
      onMessages(
        stream,
        (message) => {
          const any = decodeAny(message)
          if (mine === undefined) {
            const entry: Waiting = {
              received: [],
              ended: false,
              wake: () => {},
              send: (m) => void answer.message(m),
              close: () => answer.end(),
            }
            streams.set(stringField(any.value, 1), (mine = entry))
            answer.message(encodeAny({ typeUrl: "google.protobuf.Empty", value: new Uint8Array(0) }))
            return
          }
          mine.received.push(Buffer.from(field(any.value, 1)))
          mine.wake()
        },
        () => {
          if (mine !== undefined) mine.ended = true
          mine?.wake()
        },
      )
    }

    const transfer = (stream: http2.ServerHttp2Stream, request: Uint8Array) => {
      const source = decodeAny(field(request, 1))
      const store = decodeAny(field(request, 2)).value
      const progress = streams.get(stringField(field(request, 3), 1))
      const input = streams.get(stringField(source.value, 1))
      if (input === undefined) return refuse(stream, 5, "stream not found")
      const labels: Record<string, string> = {}
      let prefix = ""
      visitFields(store, (f) => {
        if (f.number === 2) readMapEntry(f.bytes, labels)
        if (f.number === 6) prefix = stringField(f.bytes, 1)
      })
      const report = (event: string, name = "", digest = "") => {
        const value = str(1, event)
        writeString(value, 2, name)
        if (digest !== "") writeBytes(value, 6, str(2, digest).finish())
        progress?.send(encodeAny({ typeUrl: "containerd.types.transfer.Progress", value: value.finish() }))
      }
      report("Importing")
      let used = 0
      const step = () => {
        if (!input.ended) {
          const total = input.received.reduce((n, b) => n + b.length, 0)
          if (total > used) input.send(grant(total - used))
          used = total
          return
        }
        try {
          for (const [name, digest] of readArchive(Buffer.concat(input.received), prefix, blobs)) {
            images.set(name, { name, digest, labels })
            report("saved", name, digest)
          }
          report("Completed import")
          const answer = respond(stream)
          answer.message(new Uint8Array(0))
          answer.end()
        } catch (e) {
          refuse(stream, 2, (e as Error).message)
        }
        progress?.close()
        input.close()
      }
      input.wake = step
      input.send(grant(65536))
      step()
    }

    /** One blob, in pieces; refused unless it is what it is said to be. */
    const write = (stream: http2.ServerHttp2Stream, lease: string) => {
      if (!leases.has(lease)) return refuse(stream, 5, `lease "${lease}": not found`)
      const answer = respond(stream)
      const pieces: Array<Buffer> = []
      onMessages(
        stream,
        (message) => {
          const numbers = new Map<number, bigint>()
          visitFields(message, (f) => numbers.set(f.number, f.varint))
          const digest = stringField(message, 4)
          if (pieces.length === 0 && blobs.has(digest))
            return answer.end("6", `content ${digest}: already exists`)
          pieces.push(Buffer.from(field(message, 6)))
          const blob = Buffer.concat(pieces)
          if (numbers.get(1) === 2n) {
            const found = `sha256:${sha256(blob)}`
            if (found !== digest)
              return answer.end(
                "9",
                `unexpected commit digest ${found}, expected ${digest}: failed precondition`,
              )
            blobs.set(digest, blob)
          }
          answer.message(
            new BinaryWriter()
              .tag(1, 0)
              .int32(Number(numbers.get(1)))
              .finish(),
          )
        },
        () => answer.end(),
      )
    }

    const subscribe = (stream: http2.ServerHttp2Stream, request: Uint8Array) => {
      const answer = respond(stream)
      const topics: Array<string> = []
      visitFields(request, (f) => topics.push(/topic=="([^"]+)"/.exec(text(f))?.[1] ?? ""))
      const entry = { topics, send: (m: Uint8Array) => void answer.message(m) }
      subscribers.add(entry)
      stream.on("close", () => subscribers.delete(entry))
    }
    const publish = (request: Uint8Array, namespace: string) => {
      const topic = stringField(request, 1)
      const envelope = writeBytes(
        new BinaryWriter(),
        1,
        new BinaryWriter().tag(1, 0).uint64(Date.now()).finish(),
      )
      writeString(writeString(envelope, 2, namespace), 3, topic)
      const message = writeBytes(envelope, 4, field(request, 2)).finish()
      for (const s of subscribers) if (s.topics.includes(topic)) s.send(message)
    }

    // The answer's message, or a number and text for a refusal.
    const unary = (
      method: string,
      request: Uint8Array,
      namespace: string,
    ): Uint8Array | readonly [number, string] => {
      switch (method) {
        case "/grpc.health.v1.Health/Check":
          return new BinaryWriter().tag(1, 0).int32(1).finish()
        case "/containerd.services.version.v1.Version/Version":
          return str(1, "v2.4.2").finish()
        case "/runtime.v1.RuntimeService/Version":
          return writeString(writeString(str(2, "containerd"), 3, "v2.4.2"), 4, "v1").finish()
        case "/runtime.v1.ImageService/ListImages":
          return list(
            [...images.values()].map((i) => {
              const w = str(2, i.name)
              return i.labels["io.cri-containerd.pinned"] === "pinned" ? writeTrue(w, 8).finish() : w.finish()
            }),
          )
      }
      if (namespace === "" && method.startsWith("/containerd.") && !method.includes(".Namespaces/"))
        return [9, "namespace is required: failed precondition"]
      switch (method) {
        case "/containerd.services.images.v1.Images/List":
          return list([...images.values()].map(imageMessage))
        case "/containerd.services.images.v1.Images/Create":
        case "/containerd.services.images.v1.Images/Update": {
          const image = field(request, 1)
          const name = stringField(image, 1)
          if (method.endsWith("Create") && images.has(name)) return [6, `image "${name}": already exists`]
          const labels: Record<string, string> = {}
          visitFields(image, (f) => {
            if (f.number === 2) readMapEntry(f.bytes, labels)
          })
          images.set(name, { name, labels, digest: stringField(field(image, 3), 2) })
          return request
        }
        case "/containerd.services.content.v1.Content/Update":
          return blobs.has(stringField(field(request, 1), 1)) ? request : [5, "content: not found"]
        case "/containerd.services.leases.v1.Leases/Create": {
          const id = stringField(request, 1)
          if (leases.has(id)) return [6, `lease "${id}": already exists`]
          leases.add(id)
          return new Uint8Array(0)
        }
        case "/containerd.services.leases.v1.Leases/Delete":
          return leases.delete(stringField(request, 1))
            ? new Uint8Array(0)
            : [5, `lease "${stringField(request, 1)}": not found`]
        case "/containerd.services.images.v1.Images/Delete":
          images.delete(stringField(request, 1))
          return new Uint8Array(0)
        case "/containerd.services.content.v1.Content/Info":
        case "/containerd.services.content.v1.Content/Read": {
          const digest = stringField(request, 1)
          const blob = blobs.get(digest)
          if (blob === undefined) return [5, `content digest ${digest}: not found`]
          if (method.endsWith("Read")) return writeBytes(new BinaryWriter(), 2, blob).finish()
          return writeBytes(
            new BinaryWriter(),
            1,
            str(1, digest).tag(2, 0).int64(blob.length).finish(),
          ).finish()
        }
        case "/containerd.services.namespaces.v1.Namespaces/Create": {
          const name = stringField(field(request, 1), 1)
          if (namespaces.has(name)) return [6, `namespace "${name}": already exists`]
          namespaces.add(name)
          return request
        }
        case "/containerd.services.containers.v1.Containers/Create":
          containers.set(stringField(field(request, 1), 1), field(request, 1))
          return request
        case "/containerd.services.containers.v1.Containers/Get": {
          const found = containers.get(stringField(request, 1))
          return found === undefined
            ? [5, `container "${stringField(request, 1)}" in namespace "${namespace}": not found`]
            : writeBytes(new BinaryWriter(), 1, found).finish()
        }
        case "/containerd.services.tasks.v1.Tasks/List":
          return new Uint8Array(0)
        case "/containerd.services.events.v1.Events/Publish":
          publish(request, namespace)
          return new Uint8Array(0)
        default:
          return [12, `unknown method ${method}`]
      }
    }

    return yield* serve(address, (stream, headers) => {
      const method = String(headers[":path"])
      const namespace = String(headers["containerd-namespace"] ?? "")
      if (method.endsWith("Streaming/Stream")) return openStream(stream)
      if (method.endsWith("Content/Write")) return write(stream, String(headers["containerd-lease"] ?? ""))
      onMessages(stream, (request) => {
        if (method.endsWith("Transfer/Transfer")) return transfer(stream, request)
        if (method.endsWith("Events/Subscribe")) return subscribe(stream, request)
        const result = unary(method, request, namespace)
        if (!(result instanceof Uint8Array)) return refuse(stream, ...result)
        const answer = respond(stream)
        answer.message(result)
        answer.end()
      })
    })
  })
