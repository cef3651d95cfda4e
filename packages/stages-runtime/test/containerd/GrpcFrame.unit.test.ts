// Property tests of the frame decoder and of the message decoders, on random bytes from a seeded generator.
import { assert, describe, it } from "@effect/vitest"
import * as Containers from "@kios/stages-runtime/containerd/Containers"
import * as Content from "@kios/stages-runtime/containerd/Content"
import * as CriRuntime from "@kios/stages-runtime/containerd/CriRuntime"
import * as Events from "@kios/stages-runtime/containerd/Events"
import { encodeFrame, makeFrameDecoder } from "@kios/stages-runtime/containerd/GrpcFrame"
import * as Health from "@kios/stages-runtime/containerd/Health"
import * as Images from "@kios/stages-runtime/containerd/Images"
import {
  BinaryWriter,
  decodeAny,
  readMapEntry,
  writeMap,
  visitFields,
} from "@kios/stages-runtime/containerd/Proto"
import * as Streaming from "@kios/stages-runtime/containerd/Streaming"
import * as Tasks from "@kios/stages-runtime/containerd/Tasks"
import * as Version from "@kios/stages-runtime/containerd/Version"

/** mulberry32: small, seeded, good enough to shuffle bytes. */
const generator = (seed: number) => {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
const int = (random: () => number, below: number) => Math.floor(random() * below)
const randomBytes = (random: () => number, length: number) =>
  Uint8Array.from({ length }, () => (random() < 0.4 ? int(random, 4) : int(random, 256)))

const split = (random: () => number, all: Uint8Array) => {
  const chunks: Array<Uint8Array> = []
  for (let at = 0; at < all.length;) {
    const n = 1 + int(random, random() < 0.5 ? 4 : 300)
    chunks.push(all.subarray(at, at + n))
    at += n
  }
  return chunks
}

describe("frame decoder", () => {
  it("gives back what was framed, however it is cut up (3000 runs)", () => {
    const random = generator(1)
    for (let run = 0; run < 3000; run++) {
      const messages = Array.from({ length: int(random, 6) }, () => randomBytes(random, int(random, 200)))
      const decoder = makeFrameDecoder(200)
      const out = split(random, Buffer.concat(messages.map(encodeFrame))).flatMap(
        (c) => decoder.push(c).messages,
      )
      assert.deepStrictEqual(
        out.map((m) => Buffer.from(m).toString("hex")),
        messages.map((m) => Buffer.from(m).toString("hex")),
      )
      assert.strictEqual(decoder.pending(), 0)
    }
  })

  it("takes any bytes without a throw, in bounded memory (5000 runs)", () => {
    const random = generator(2)
    let failed = 0
    for (let run = 0; run < 5000; run++) {
      const decoder = makeFrameDecoder(64)
      let error: string | undefined
      for (const chunk of split(random, randomBytes(random, int(random, 500)))) {
        const decoded = decoder.push(chunk)
        if (error !== undefined) assert.deepStrictEqual(decoded, { messages: [], error })
        error = decoded.error
        for (const m of decoded.messages) assert.isAtMost(m.length, 64)
        assert.isAtMost(decoder.pending(), 64 + 5)
      }
      if (error !== undefined) failed++
    }
    assert.isAbove(failed, 1000)
  })

  it("refuses a length as soon as its header is read", () => {
    assert.match(
      makeFrameDecoder(9).push(new Uint8Array([0, 0, 0, 0, 10])).error ?? "",
      /10 bytes, the limit is 9/,
    )
    assert.isUndefined(makeFrameDecoder(9).push(new Uint8Array([0, 0, 0, 0, 9])).error)
  })
})

describe("data frame", () => {
  it("is one Data message of the length asked for, also when it is used again", () => {
    const frame = Streaming.makeDataFrame(70_000)
    for (const length of [70_000, 1, 127, 128, 0, 16_384, 65_536]) {
      frame.payload.fill(length & 255, 0, length)
      const decoded = makeFrameDecoder(100_000).push(frame.frame(length))
      assert.lengthOf(decoded.messages, 1)
      const any = decodeAny(decoded.messages[0]!)
      assert.strictEqual(any.typeUrl, "containerd.types.transfer.Data")
      let data: Uint8Array | undefined
      visitFields(any.value, (f) => {
        assert.strictEqual(f.number, 1)
        data = f.bytes
      })
      assert.strictEqual(data?.length, length)
      assert.isTrue(data?.every((b) => b === (length & 255)))
    }
  })
})

describe("message decoders", () => {
  const decoders: Record<string, (m: Uint8Array) => unknown> = {
    container: Containers.decodeGetResponse,
    contentInfo: Content.decodeInfoResponse,
    contentRead: Content.decodeReadResponse,
    criVersion: CriRuntime.decodeVersionResponse,
    envelope: Events.decodeEnvelope,
    health: Health.decodeResponse,
    images: Images.decodeListResponse,
    progress: Streaming.decodeProgress,
    tasks: Tasks.decodeListResponse,
    version: Version.decodeResponse,
    window: Streaming.decodeWindowUpdate,
  }
  for (const [name, decode] of Object.entries(decoders)) {
    it(`${name}: random bytes decode or throw an Error (2000 runs)`, () => {
      const random = generator(3)
      for (let run = 0; run < 2000; run++) {
        try {
          decode(randomBytes(random, int(random, 60)))
        } catch (e) {
          assert.instanceOf(e, Error)
        }
      }
    })
    it(`${name}: nothing is the default message`, () => {
      decode(new Uint8Array(0))
    })
  }

  it("a map keeps odd keys and does not touch prototypes", () => {
    const labels = JSON.parse('{"__proto__":"x","constructor":"y","ä":"ö","":"empty"}') as Record<
      string,
      string
    >
    const into: Record<string, string> = {}
    visitFields(writeMap(new BinaryWriter(), 1, labels).finish(), (f) => readMapEntry(f.bytes, into))
    assert.deepStrictEqual(Object.entries(into), Object.entries(labels))
    assert.strictEqual(Object.getPrototypeOf(into), Object.prototype)
  })
})
