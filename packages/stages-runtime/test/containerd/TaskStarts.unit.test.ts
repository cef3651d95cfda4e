// The cases of "nothing lost, nothing twice" that a healthy server does not show.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import type * as http2 from "node:http2"
import * as Containers from "@kios/stages-runtime/containerd/Containers"
import * as Events from "@kios/stages-runtime/containerd/Events"
import { makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import {
  BinaryWriter,
  encodeAny,
  text,
  visitFields,
  writeBytes,
  writeString,
} from "@kios/stages-runtime/containerd/Proto"
import { taskStarts } from "@kios/stages-runtime/containerd/TaskStarts"
import * as Tasks from "@kios/stages-runtime/containerd/Tasks"
import { onMessages, refuse, respond, serve, tempDir } from "./support/http2Server.ts"

const str = (n: number, v: string) => writeString(new BinaryWriter(), n, v)
const envelope = (topic: string, event: Uint8Array) => {
  const w = writeString(str(2, "k8s.io"), 3, topic)
  return writeBytes(w, 4, encodeAny({ typeUrl: "containerd.events.TaskStart", value: event })).finish()
}
const start = (id: string, pid: number) => envelope("/tasks/start", str(1, id).tag(2, 0).uint32(pid).finish())
const task = (id: string, pid: number, status: number) =>
  str(2, id).tag(3, 0).uint32(pid).tag(4, 0).int32(status).finish()

interface Script {
  /** A subscription becomes active at this many published markers: what comes before is lost to it. */
  readonly activeAfter?: number
  readonly tasks?: ReadonlyArray<Uint8Array>
  /** How often Containers.Get fails with UNAVAILABLE. */
  getFailures?: number
  /** Runs when the subscription has seen the tasks listed. */
  readonly onListed?: (
    events: { readonly send: (m: Uint8Array) => void; readonly end: () => void },
    nth: number,
  ) => void
}

/** Serves the script and gives the first `count` starts. */
const run = (script: Script, count: number) =>
  Effect.gen(function* () {
    let published = 0
    let listed = 0
    let subscriber:
      | { readonly topics: string; readonly send: (m: Uint8Array) => void; readonly end: () => void }
      | undefined
    const reply = (stream: http2.ServerHttp2Stream, message: Uint8Array) => {
      const answer = respond(stream)
      answer.message(message)
      answer.end()
    }
    const server = yield* serve(`${yield* tempDir}/s.sock`, (stream, headers) => {
      onMessages(stream, (request) => {
        switch (headers[":path"]) {
          case Events.subscribe: {
            const answer = respond(stream)
            let topics = ""
            visitFields(request, (f) => (topics += text(f)))
            subscriber = {
              topics,
              send: (m) => void answer.message(m),
              end: () => answer.end("14", "going away"),
            }
            published = 0
            return
          }
          case Events.publish: {
            let topic = ""
            visitFields(request, (f) => {
              if (f.number === 1) topic = text(f)
            })
            if (published++ >= (script.activeAfter ?? 0)) subscriber?.send(envelope(topic, new Uint8Array(0)))
            return reply(stream, new Uint8Array(0))
          }
          case Tasks.list: {
            const w = new BinaryWriter()
            for (const t of script.tasks ?? []) writeBytes(w, 1, t)
            reply(stream, w.finish())
            return script.onListed?.(subscriber!, listed++)
          }
          case Containers.get:
            if ((script.getFailures ?? 0) > 0) {
              script.getFailures!--
              return refuse(stream, 14, "restarting")
            }
            return refuse(stream, 5, "not found")
        }
      })
    })
    const grpc = yield* makeGrpc(server.address)
    const starts = yield* taskStarts(grpc, "k8s.io").pipe(Stream.take(count), Stream.runCollect)
    return starts.map((s) => `${s.containerId} ${s.pid}`)
  }).pipe(Effect.scoped, Effect.timeout("15 seconds"))

describe("taskStarts", () => {
  it.live("lists tasks only when the subscription is known to be active", () =>
    Effect.gen(function* () {
      const seen = yield* run(
        { activeAfter: 3, tasks: [task("a", 1, 2)], onListed: (s) => s.send(start("b", 2)) },
        2,
      )
      assert.deepStrictEqual(seen, ["a 1", "b 2"])
    }),
  )

  it.live(
    "one that is both listed and announced comes once; created and stopped ones are not listed as running",
    () =>
      Effect.gen(function* () {
        const tasks = [task("a", 1, 2), task("created", 2, 1), task("stopped", 3, 3), task("paused", 4, 4)]
        const onListed: Script["onListed"] = (s) => {
          s.send(start("a", 1))
          s.send(start("created", 2))
        }
        assert.deepStrictEqual(yield* run({ tasks, onListed }, 3), ["a 1", "paused 4", "created 2"])
      }),
  )

  it.live("a start that could not be looked up is delivered later, also when its task is gone by then", () =>
    Effect.gen(function* () {
      const onListed: Script["onListed"] = (s, nth) => {
        if (nth === 0) s.send(start("short-lived", 9))
        else s.send(start("next", 10))
      }
      assert.deepStrictEqual(yield* run({ getFailures: 1, onListed }, 2), ["short-lived 9", "next 10"])
    }),
  )

  it.live(
    "subscribes again when the server ends the subscription or sends nonsense, without repeating itself",
    () =>
      Effect.gen(function* () {
        const onListed: Script["onListed"] = (s, nth) => {
          if (nth === 0) s.end()
          else if (nth === 1) s.send(new Uint8Array([0x0a, 0x7f]))
          else s.send(start("b", 2))
        }
        assert.deepStrictEqual(yield* run({ tasks: [task("a", 1, 2)], onListed }, 2), ["a 1", "b 2"])
      }),
  )

  it.live("can be interrupted while it waits", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(run({}, 1))
      yield* Effect.sleep("20 millis")
      yield* Fiber.interrupt(fiber).pipe(Effect.timeout("5 seconds"))
    }),
  )
})
