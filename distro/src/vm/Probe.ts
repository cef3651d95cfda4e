/**
 * Runs shell scripts in a guest that has no shell of its own: a test pod serves
 * a named virtio-serial port with {@link probeScript}, and this client talks to
 * it. The protocol is described in `ProbeScript.ts`.
 *
 * One script runs at a time. A lost connection is made anew, and before a script
 * is sent the guest has answered a greeting that is used once only, so that
 * nothing left over from before can be taken for an answer, and no script runs
 * later than its caller still waits for it.
 */
import { Duration, Effect, Scope, Semaphore } from "effect"
import { randomBytes } from "node:crypto"
import type * as net from "node:net"
import { maxScriptBytes, probeProtocol } from "./ProbeScript.ts"
import { connectUnix } from "./UnixSocket.ts"
import { ProbeError } from "./VmError.ts"

export * from "./ProbeScript.ts"

/** What a script did. */
export interface ProbeResult {
  /** 0 to 255; 128 + N when signal N ended it. */
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  /** More was written than the guest sends (1 MiB each); the beginning is here. */
  readonly truncated: boolean
}

/** A client of one port. */
export interface Probe {
  /** Waits until the guest answers. Fails with `ProbeError`; default deadline 60 seconds. */
  readonly ready: (options?: { readonly timeout?: Duration.Input }) => Effect.Effect<void, ProbeError>
  /**
   * Runs `script` with the guest's `sh`; standard input is empty. The guest
   * kills it and its children after `timeout` (default 30 seconds, rounded up to
   * whole ones), which fails with `guest-timeout`. An exit code other than 0 is
   * a result, not a failure.
   */
  readonly exec: (
    script: string,
    options?: { readonly timeout?: Duration.Input },
  ) => Effect.Effect<ProbeResult, ProbeError>
}

/** What the host grants the guest beyond a script's own deadline: sending the output, a busy machine. */
const answerGraceMs = 20_000
const helloEveryMs = 1000
/** A guest's line is at most 3000 characters and its tag. */
const maxLine = 65_536

/** The value of a line of the guest: `kios-probe VERB ID REST`. */
export interface ProbeLine {
  readonly verb: string
  readonly id: string
  readonly rest: ReadonlyArray<string>
}

/**
 * Reads a line of the guest; `undefined` for noise.
 *
 * @example
 * ```ts
 * import { parseProbeLine } from "@kios/distro/vm/Probe"
 *
 * parseProbeLine("kios-probe hello 1 2")?.verb // "hello"
 * ```
 */
export const parseProbeLine = (line: string): ProbeLine | undefined => {
  const match = /^kios-probe (hello|begin|out|err|end|reject) ([A-Za-z0-9-]{1,64})(?: (.*))?$/.exec(line)
  return match === null
    ? undefined
    : {
        verb: match[1] ?? "",
        id: match[2] ?? "",
        rest: (match[3] ?? "").split(" ").filter((word) => word !== ""),
      }
}

/**
 * Splits what arrives into lines; a line that is too long is noise and is dropped.
 *
 * @example
 * ```ts
 * import { ProbeLines } from "@kios/distro/vm/Probe"
 *
 * const lines = new ProbeLines()
 * ```
 */
export class ProbeLines {
  #buffer = ""
  #skipping = false

  push(text: string): Array<ProbeLine> {
    const found: Array<ProbeLine> = []
    const pieces = text.split("\n")
    for (const [index, piece] of pieces.entries()) {
      if (!this.#skipping) this.#buffer += piece
      if (this.#buffer.length > maxLine) {
        this.#buffer = ""
        this.#skipping = true
      }
      if (index === pieces.length - 1) break
      const parsed = parseProbeLine(this.#buffer.trim())
      if (parsed !== undefined) found.push(parsed)
      this.#buffer = ""
      this.#skipping = false
    }
    return found
  }
}

interface Connection {
  readonly socket: net.Socket
  closed: string | undefined
  listener: ((line: ProbeLine) => void) | undefined
  onClose: (() => void) | undefined
}

const error = (operation: string, reason: ProbeError["reason"], detail: string) =>
  new ProbeError({ operation, reason, detail })

/**
 * A client for the port whose socket is at `path` ({@link import("./Qemu.ts").Qemu.ports});
 * its connection is closed with the scope. Connects at the first use.
 *
 * @example
 * ```ts
 * import * as Probe from "@kios/distro/vm/Probe"
 * import type { Qemu } from "@kios/distro/vm/Qemu"
 * import { Effect } from "effect"
 *
 * const binaries = (vm: Qemu) =>
 *   Effect.gen(function* () {
 *     const probe = yield* Probe.make({ path: vm.ports[Probe.defaultProbePort] ?? "" })
 *     yield* probe.ready()
 *     return (yield* probe.exec("ls /host/bin", { timeout: "5 seconds" })).stdout
 *   })
 * ```
 */
export const make = Effect.fnUntraced(function* (options: {
  readonly path: string
}): Effect.fn.Return<Probe, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const one = yield* Semaphore.make(1)
  const session = randomBytes(4).toString("hex")
  let count = 0
  let connection: Connection | undefined
  /** The guest waits for a request, as far as we know. */
  let idle = false

  const connect = Effect.fnUntraced(function* (operation: string, timeoutMs: number) {
    if (connection !== undefined && connection.closed === undefined) return connection
    idle = false
    const socket = yield* connectUnix(options.path, timeoutMs).pipe(
      Effect.provideService(Scope.Scope, scope),
      Effect.mapError(({ detail }) =>
        error(operation, "connect", `${options.path}: ${detail}; does the machine run?`),
      ),
    )
    const lines = new ProbeLines()
    const made: Connection = { socket, closed: undefined, listener: undefined, onClose: undefined }
    const close = (why: string) => {
      made.closed ??= why
      made.onClose?.()
    }
    socket.setEncoding("utf8")
    socket.on("data", (text: string) => {
      for (const line of lines.push(text)) made.listener?.(line)
    })
    socket.on("error", (cause) => close(cause.message))
    socket.on("close", () => close("the other end closed the port"))
    connection = made
    return made
  })

  /** Sends a line (again every `everyMs`) and collects the guest's lines until one gives the answer. */
  const ask = <A>(
    to: Connection,
    operation: string,
    line: string,
    everyMs: number | undefined,
    receive: (line: ProbeLine) => Effect.Effect<A, ProbeError> | undefined,
  ): Effect.Effect<A, ProbeError> =>
    Effect.callback((resume) => {
      let timer: NodeJS.Timeout | undefined
      const stop = () => {
        clearInterval(timer)
        to.listener = undefined
        to.onClose = undefined
      }
      const done = (effect: Effect.Effect<A, ProbeError>) => {
        stop()
        resume(effect)
      }
      const closed = () =>
        done(
          Effect.fail(error(operation, "closed", to.closed ?? "the port was closed; did the machine end?")),
        )
      if (to.closed !== undefined) return closed()
      to.onClose = closed
      to.listener = (received) => {
        const answer = receive(received)
        if (answer !== undefined) done(answer)
      }
      const write = () => to.socket.write(`\n${line}\n`)
      write()
      if (everyMs !== undefined) timer = setInterval(write, everyMs)
      return Effect.sync(stop)
    })

  const synchronise = Effect.fnUntraced(function* (operation: string, timeoutMs: number) {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const left = Math.max(1, deadline - Date.now())
      const to = yield* connect(operation, left)
      if (idle) return to
      const id = `${session}-h${count++}`
      const answered = yield* ask(to, operation, `kios-probe hello ${id}`, helloEveryMs, (line) =>
        line.verb === "hello" && line.id === id ? Effect.succeed(line) : undefined,
      ).pipe(
        Effect.timeoutOrElse({
          duration: left,
          orElse: () =>
            Effect.fail(
              error(
                operation,
                "timeout",
                `the guest did not answer within ${timeoutMs} ms; does the pod with the probe run, and does the machine have the port?`,
              ),
            ),
        }),
        // A connection that breaks is made again while there is time.
        Effect.catchIf(
          (cause) => cause.reason === "closed" && Date.now() < deadline,
          () => Effect.as(Effect.sleep(50), undefined),
        ),
      )
      if (answered === undefined) continue
      if (answered.rest[0] !== String(probeProtocol))
        return yield* error(
          operation,
          "protocol",
          `the guest speaks version ${answered.rest[0]} of the probe's protocol, this is version ${probeProtocol}`,
        )
      idle = true
      return to
    }
  })

  const run = Effect.fnUntraced(function* (script: string, timeoutMs: number) {
    const operation = `exec ${JSON.stringify(script.length > 60 ? `${script.slice(0, 60)}...` : script)}`
    const bytes = Buffer.from(script, "utf8")
    if (bytes.length > maxScriptBytes)
      return yield* error(
        operation,
        "too-long",
        `${bytes.length} bytes; at most ${maxScriptBytes} are accepted`,
      )
    const encoded = bytes.toString("base64")
    const seconds = Math.max(1, Math.ceil(timeoutMs / 1000))
    for (let left = 3; ; left--) {
      const to = yield* synchronise(operation, timeoutMs + answerGraceMs)
      const id = `${session}-${count++}`
      const out: Array<string> = []
      const err: Array<string> = []
      idle = false // until its answer is complete
      const answer = yield* ask<ProbeResult | "again">(
        to,
        operation,
        `kios-probe exec ${id} ${seconds} ${encoded.length} ${encoded}`,
        undefined,
        (line) => {
          if (line.id !== id) return undefined
          switch (line.verb) {
            case "out":
              out.push(line.rest[0] ?? "")
              return undefined
            case "err":
              err.push(line.rest[0] ?? "")
              return undefined
            case "reject":
              return left > 1
                ? Effect.succeed("again")
                : Effect.fail(
                    error(operation, "protocol", `the guest rejected the request: ${line.rest.join(" ")}`),
                  )
            case "end":
              return finish(operation, seconds, line.rest, decode(out), decode(err))
            default:
              return undefined
          }
        },
      ).pipe(
        Effect.timeoutOrElse({
          duration: seconds * 1000 + answerGraceMs,
          orElse: () =>
            Effect.fail(
              error(
                operation,
                "timeout",
                `no answer within ${seconds + answerGraceMs / 1000} s; is the guest alive?`,
              ),
            ),
        }),
        Effect.tapError((cause) =>
          Effect.sync(() => {
            idle = cause.reason === "guest-timeout" // this one was an answer
          }),
        ),
      )
      if (answer === "again") continue
      idle = true
      return answer
    }
  })

  return {
    ready: (o = {}) =>
      one.withPermits(1)(
        Effect.asVoid(
          synchronise(
            "ready",
            Math.max(1, Duration.toMillis(Duration.fromInputUnsafe(o.timeout ?? "60 seconds"))),
          ),
        ),
      ),
    exec: (script, o = {}) =>
      one.withPermits(1)(
        run(script, Math.max(1, Duration.toMillis(Duration.fromInputUnsafe(o.timeout ?? "30 seconds")))),
      ),
  }
})

/** Each line is encoded for itself or part of one text: both end on whole groups of four. */
const decode = (chunks: ReadonlyArray<string>): Buffer =>
  Buffer.concat(chunks.map((chunk) => Buffer.from(chunk, "base64")))

const finish = (
  operation: string,
  seconds: number,
  words: ReadonlyArray<string>,
  stdout: Buffer,
  stderr: Buffer,
): Effect.Effect<ProbeResult, ProbeError> => {
  const [exitCode, late, outBytes, errBytes, limit] = words.map(Number)
  if (
    exitCode === undefined ||
    late === undefined ||
    outBytes === undefined ||
    errBytes === undefined ||
    limit === undefined ||
    words.length !== 5 ||
    words.some((word) => !/^\d{1,15}$/.test(word))
  )
    return Effect.fail(error(operation, "protocol", `the guest's answer ends with "${words.join(" ")}"`))
  if (stdout.length !== Math.min(outBytes, limit) || stderr.length !== Math.min(errBytes, limit))
    return Effect.fail(
      error(
        operation,
        "protocol",
        `the guest sent ${stdout.length} and ${stderr.length} bytes of ${outBytes} and ${errBytes}; part of its answer was lost`,
      ),
    )
  if (late === 1)
    return Effect.fail(
      error(
        operation,
        "guest-timeout",
        `stopped after ${seconds} s; it had printed ${JSON.stringify(stdout.toString("utf8").slice(-200))}`,
      ),
    )
  return Effect.succeed({
    exitCode,
    stdout: stdout.toString("utf8"),
    stderr: stderr.toString("utf8"),
    truncated: outBytes > limit || errBytes > limit,
  })
}
