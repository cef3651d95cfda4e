// The sockets of init on Linux: a crowd, streams of nonsense, pods, and the original's client.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as net from "node:net"
import * as readline from "node:readline"
import { fileURLToPath } from "node:url"
import { calls, messages, sasl } from "./dbus/client.ts"
import { commandStream, dbusStream, portions } from "./streams.ts"

const STREAMS = 10_000
const CROWD = 500
// As long as one turn of init's loop may take.
const LONGEST_MS = 50
// The first crowd is met by code that was never run, and so is not compiled.
const LONGEST_COLD_MS = 100

interface Report {
  readonly longest: { readonly wall: number; readonly own: number }
  readonly requests: number
  readonly restarts: { readonly kubelet: number; readonly runtime: number }
  readonly inhibitors: number
  readonly descriptors: number
  readonly rss: number
}

let server: ChildProcess
const lines: Array<(line: string) => void> = []
const ask = <A>(question: string): Promise<A> =>
  new Promise((resolve) => {
    lines.push((line) => resolve(JSON.parse(line) as A))
    if (question !== "") server.stdin?.write(`${question}\n`)
  })
const report = () => ask<Report>("report")
const at = (path: string) => `/proc/${server.pid}/root${path}`
const bus = () => at("/run/dbus/system_bus_socket")
const system = () => at("/run/system.sock")

const until = async (what: string, condition: () => Promise<boolean>) => {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((done) => setTimeout(done, 20)))
    if (await condition()) return
  assert.fail(what)
}

/** Connects; what comes is kept, unless it is `deaf` and leaves it where it is. */
const connect = (path: string, deaf = false) =>
  new Promise<{
    readonly socket: net.Socket
    readonly received: () => Buffer
    readonly closed: Promise<void>
    readonly receive: (length: number) => Promise<Buffer>
  }>((resolve, reject) => {
    const socket = new net.Socket()
    // Before it is connected: Node would begin to read.
    if (deaf) socket.pause()
    socket.connect(path)
    let bytes = Buffer.alloc(0)
    const closed = new Promise<void>((done) => socket.once("close", () => done()))
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
    })
    socket.once("error", reject)
    socket.once("connect", () => {
      socket.removeListener("error", reject)
      socket.on("error", () => {})
      resolve({
        socket,
        received: () => bytes,
        closed,
        receive: async (length) => {
          while (bytes.length < length && !socket.destroyed) await new Promise((done) => setTimeout(done, 1))
          return bytes
        },
      })
    })
  })

/** A client as the kubelet is, after Hello. */
const kubelet = async () => {
  const client = await connect(bus())
  client.socket.write(Buffer.concat([Buffer.from(sasl), calls.hello()]))
  await until("Hello is answered", async () => messagesOf(client.received()).length > 0)
  return client
}

/** Runs `one` for every number below `count`, that many at a time. */
const crowd = async (count: number, atATime: number, one: (n: number) => Promise<void>) => {
  let next = 0
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      while (next < count) await one(next++)
    }),
  )
}

beforeAll(async () => {
  const script = fileURLToPath(new URL("socketServer.ts", import.meta.url))
  server = spawn(
    "unshare",
    [
      "--mount",
      "sh",
      "-c",
      `mount -t tmpfs run /run && exec "$0" --conditions=@kios/source "${script}" ${process.pid}`,
      process.execPath,
    ],
    { stdio: ["pipe", "pipe", "inherit"] },
  )
  if (server.stdout === null) throw new Error("no output")
  readline.createInterface({ input: server.stdout }).on("line", (line) => {
    if (line.startsWith("{")) lines.shift()?.(line)
  })
  await ask("")
})
afterAll(() => {
  server.kill("SIGKILL")
})

describe("the sockets of init", () => {
  it(`D-Bus: ${STREAMS} streams of nonsense from ${CROWD} at a time hold up neither the loop nor a client`, async () => {
    const before = await report()
    const good = await kubelet()
    let answers = messagesOf(good.received()).length
    const nonsense = async (seed: number) => {
      const client = await connect(bus())
      for (const part of portions(dbusStream(seed), seed)) client.socket.write(part)
      client.socket.end()
      await client.closed
      if (seed % 100 !== 0) return
      good.socket.write(calls.get())
      answers++
    }
    await crowd(CROWD, CROWD, nonsense)
    const cold = await report()
    tell("D-Bus, the first crowd", cold)
    assert.isBelow(cold.longest.own, LONGEST_COLD_MS)
    await crowd(STREAMS - CROWD, CROWD, (n) => nonsense(CROWD + n))
    await until("every question is answered", async () => messagesOf(good.received()).length === answers)
    good.socket.destroy()
    await settled("D-Bus, nonsense", before)
  }, 300_000)

  it(`the system socket: ${STREAMS} streams of nonsense from ${CROWD} at a time`, async () => {
    const before = await report()
    await crowd(STREAMS, CROWD, async (seed) => {
      const client = await connect(system())
      for (const part of portions(commandStream(seed), seed)) client.socket.write(part)
      client.socket.end()
      await client.closed
    })
    await settled("system socket, nonsense", before)
  }, 300_000)

  it(`${CROWD} clients at once on each: silent, slow, deaf, and the kubelet among them`, async () => {
    const before = await report()
    const all = await Promise.all(
      Array.from({ length: 2 * CROWD - 10 }, async (_, n) => {
        const kind = n % 8
        const client = await connect(n % 2 === 0 ? bus() : system(), kind === 4)
        if (kind === 2) client.socket.write("\0AUTH EXTERNAL")
        if (kind === 4) {
          client.socket.write(
            Buffer.concat([Buffer.from(sasl), calls.hello(), calls.inhibit(), calls.addMatch()]),
          )
        }
        if (kind === 6)
          client.socket.write(
            Buffer.concat([
              Buffer.from(sasl),
              calls.hello(),
              ...Array.from({ length: 200 }, () => calls.get()),
            ]),
          )
        return client
      }),
    )
    const good = await kubelet()
    const began = performance.now()
    good.socket.write(calls.get())
    await until("the kubelet is answered", async () => messagesOf(good.received()).length === 2)
    const answered = performance.now() - began
    const during = await report()
    tell("crowd", { ...during, answered })
    // Those of them that asked and did not read; each holds one, up to the limit.
    assert.strictEqual(during.inhibitors, 64)
    assert.isBelow(during.longest.own, LONGEST_MS)
    for (const { socket } of all) socket.destroy()
    good.socket.destroy()
    await settled("crowd, gone", before)
  }, 300_000)

  it("a process of a pod is turned away, and so is who is not root", async () => {
    const before = await report()
    const client = (path: string) =>
      `const s=require("net").connect(${JSON.stringify(path)});s.on("connect",()=>s.write(Buffer.from([1,3,4])));s.on("error",(e)=>console.log(e.code));s.on("close",()=>console.log("closed"))`
    for (const path of [bus(), system()]) {
      const pod = spawnSync("unshare", ["--pid", "--fork", process.execPath, "-e", client(path)], {
        timeout: 60_000,
      })
      assert.match(pod.stdout.toString(), /^(E\w+\n)?closed\n$/u)
    }
    const user = spawnSync(
      "sh",
      ["-c", `cd / && exec "$0" -e '${client(system()).replaceAll("'", "")}'`, process.execPath],
      {
        uid: 65_534,
        gid: 65_534,
        timeout: 60_000,
      },
    )
    assert.match(user.stdout.toString(), /EACCES/u)
    const after = await report()
    assert.deepStrictEqual([after.requests, after.restarts], [before.requests, before.restarts])
  }, 120_000)

  it("the original's client: continue, restart of the kubelet, restart of the runtime, shutdown and its event", async () => {
    const before = await report()
    const client = await connect(system())
    client.socket.write(Buffer.of(3))
    await until(
      "the kubelet is restarted",
      async () => (await report()).restarts.kubelet > before.restarts.kubelet,
    )
    client.socket.write(Buffer.of(4))
    await until(
      "the runtime is restarted",
      async () => (await report()).restarts.runtime > before.restarts.runtime,
    )
    client.socket.write(Buffer.of(1))
    await until("a shutdown is asked for", async () => (await report()).requests === before.requests + 1)
    // What init does then. This process is what the stage takes for the kubelet, so it is waited for.
    let down = false
    const steps = ask<object>("steps").then(() => {
      down = true
    })
    assert.deepStrictEqual([...(await client.receive(1))], [1])
    await new Promise((done) => setTimeout(done, 100))
    assert.isFalse(down)
    client.socket.write(Buffer.of(2))
    await steps
    client.socket.destroy()
  }, 120_000)
})

const messagesOf = (bytes: Buffer) => {
  const begun = bytes.indexOf("AGREE_UNIX_FD\r\n")
  return begun === -1 ? [] : messages(bytes.subarray(begun + 15))
}

/** What a test measured, for those who read its output. */
const tell = (what: string, { longest, rss, ...rest }: Report & { readonly answered?: number }) =>
  console.log(
    `${what}: loop held for ${longest.own.toFixed(1)} ms at most (${longest.wall.toFixed(1)} ms by the clock), ${JSON.stringify({ ...rest, rss: `${(rss / 2 ** 20).toFixed(0)} MiB` })}`,
  )

/** The loop was free all along, and nothing is left. */
const settled = async (what: string, before: Report) => {
  const after = await report()
  tell(what, after)
  assert.isBelow(after.longest.own, LONGEST_MS)
  await until("descriptors and inhibitors are as before", async () => {
    const now = await report()
    return now.descriptors === before.descriptors && now.inhibitors === 0
  })
}
