/**
 * A client of QEMU's machine protocol (QMP) over a unix socket.
 *
 * One JSON object a line in both directions: QEMU greets, the client answers
 * `qmp_capabilities`, then commands with an `id` get `return` or `error`, and
 * events arrive at any time. Source: QEMU's `docs/interop/qmp-spec.rst`.
 */
import { type Cause, Effect, Queue, type Scope, Stream } from "effect"
import * as net from "node:net"
import { QmpError } from "./VmError.ts"
import { connectUnix } from "./UnixSocket.ts"

/** An event of the machine: `SHUTDOWN`, `RESET`, `POWERDOWN`, `STOP`, `VSERPORT_CHANGE`, ... */
export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
  /** Arrival on the host's monotonic clock, ns. */
  readonly at: bigint
}

/** A connected monitor. All commands fail with `QmpError`. */
export interface Qmp {
  /** QEMU's version, from the greeting: `7.2.22`. */
  readonly version: string
  /** Runs any command; the result is what QEMU returned. Deadline in ms, default 10000. */
  readonly execute: (
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options?: { readonly timeoutMs?: number },
  ) => Effect.Effect<unknown, QmpError>
  /** The events so far (the last 1000) and all that follow; ends with the connection. */
  readonly events: Stream.Stream<QmpEvent>
  /** The last `SHUTDOWN` event's reason: `guest-shutdown`, `guest-reset`, `host-qmp-quit`, ... */
  readonly shutdownReason: () => string | undefined
  /** Presses the power button (ACPI). */
  readonly systemPowerdown: Effect.Effect<void, QmpError>
  /** Resets the machine at once. */
  readonly systemReset: Effect.Effect<void, QmpError>
  /** Lets a machine started with `-S` run, or a stopped one go on. */
  readonly cont: Effect.Effect<void, QmpError>
  /** Freezes the guest. */
  readonly stop: Effect.Effect<void, QmpError>
  /** Ends QEMU without telling the guest. */
  readonly quit: Effect.Effect<void, QmpError>
  /** `running`, `paused`, `shutdown`, `internal-error`, ... */
  readonly queryStatus: Effect.Effect<{ readonly status: string; readonly running: boolean }, QmpError>
  /** Presses keys together, by QKeyCode: `["ctrl", "alt", "delete"]`. */
  readonly sendKey: (keys: ReadonlyArray<string>) => Effect.Effect<void, QmpError>
  /** Writes the screen into a file (PPM, or PNG with QEMU >= 7.1). Needs a display adapter. */
  readonly screendump: (path: string, format?: "ppm" | "png") => Effect.Effect<void, QmpError>
}

const eventsKept = 1000
/** More than any answer we ask for; a peer that sends more on one line is no QEMU. */
const maxLine = 16 * 1024 * 1024

interface Pending {
  readonly operation: string
  readonly resume: (effect: Effect.Effect<unknown, QmpError>) => void
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * Connects to the QMP socket at `path`, trying until `timeoutMs` (default
 * 10000) has passed, and negotiates. The connection is closed with the scope.
 *
 * Fails with `QmpError` `connect` when nobody listens or who listens is no QEMU.
 *
 * @example
 * const qmp = yield* Qmp.connect({ path: "/tmp/vm/qmp" })
 * yield* qmp.systemPowerdown
 */
export const connect = Effect.fnUntraced(function* (options: {
  readonly path: string
  readonly timeoutMs?: number
}): Effect.fn.Return<Qmp, QmpError, Scope.Scope> {
  const timeoutMs = options.timeoutMs ?? 10_000
  const deadline = Date.now() + timeoutMs
  const socket = yield* connectUnix(options.path, timeoutMs).pipe(
    Effect.mapError(
      ({ detail }) =>
        new QmpError({
          operation: "connect",
          reason: "connect",
          detail: `no answer at ${options.path} within ${timeoutMs} ms: ${detail}`,
        }),
    ),
  )
  const session = new Session(socket)
  yield* Effect.addFinalizer(() => Effect.sync(() => session.close("the connection was closed here")))
  const version = yield* session.greeting.pipe(
    Effect.timeoutOrElse({
      duration: Math.max(1, deadline - Date.now()),
      orElse: () =>
        Effect.fail(
          new QmpError({
            operation: "connect",
            reason: "connect",
            detail: `no greeting from ${options.path} within ${timeoutMs} ms; is it a QMP socket that nobody else uses?`,
          }),
        ),
    }),
  )
  yield* session.execute("qmp_capabilities")
  return session.api(version)
})

class Session {
  readonly greeting: Effect.Effect<string, QmpError>
  readonly #socket: net.Socket
  readonly #pending = new Map<number, Pending>()
  readonly #readers = new Set<Queue.Queue<QmpEvent, Cause.Done>>()
  readonly #greeted = Promise.withResolvers<string>()
  #events: Array<QmpEvent> = []
  #nextId = 1
  #buffer = ""
  #closed: string | undefined
  #shutdownReason: string | undefined

  constructor(socket: net.Socket) {
    this.#socket = socket
    this.#greeted.promise.catch(() => {}) // nobody may be asking any more
    this.greeting = Effect.tryPromise({
      try: () => this.#greeted.promise,
      catch: (cause) => new QmpError({ operation: "connect", reason: "connect", detail: String(cause) }),
    })
    socket.setEncoding("utf8")
    socket.on("data", (text: string) => this.#data(text))
    socket.on("error", (error) => this.close(error.message))
    socket.on("close", () => this.close("QEMU closed the connection"))
  }

  close(why: string): void {
    if (this.#closed !== undefined) return
    this.#closed = why
    this.#socket.destroy()
    this.#greeted.reject(why)
    for (const { operation, resume } of this.#pending.values())
      resume(Effect.fail(new QmpError({ operation, reason: "closed", detail: why })))
    this.#pending.clear()
    for (const reader of this.#readers) Queue.endUnsafe(reader)
    this.#readers.clear()
  }

  #data(text: string): void {
    this.#buffer += text
    for (let end = this.#buffer.indexOf("\n"); end >= 0; end = this.#buffer.indexOf("\n")) {
      const line = this.#buffer.slice(0, end).trim()
      this.#buffer = this.#buffer.slice(end + 1)
      if (line !== "") this.#message(line)
    }
    if (this.#buffer.length > maxLine) this.close("a line of more than 16 MiB: this is no QMP")
  }

  #message(line: string): void {
    let message: unknown
    try {
      message = JSON.parse(line)
    } catch {
      return this.close(`not a QMP message: ${line.slice(0, 200)}`)
    }
    if (!isRecord(message)) return
    if (isRecord(message["QMP"])) {
      const version = isRecord(message["QMP"]["version"]) ? message["QMP"]["version"]["qemu"] : undefined
      this.#greeted.resolve(
        isRecord(version) ? [version["major"], version["minor"], version["micro"]].join(".") : "unknown",
      )
    } else if (typeof message["event"] === "string") {
      this.#event({
        event: message["event"],
        data: isRecord(message["data"]) ? message["data"] : {},
        at: process.hrtime.bigint(),
      })
    } else if (typeof message["id"] === "number") {
      const pending = this.#pending.get(message["id"])
      this.#pending.delete(message["id"])
      const error = message["error"]
      pending?.resume(
        isRecord(error)
          ? Effect.fail(
              new QmpError({
                operation: pending.operation,
                reason: "refused",
                detail: String(error["desc"]),
                errorClass: String(error["class"]),
              }),
            )
          : Effect.succeed(message["return"]),
      )
    }
  }

  #event(event: QmpEvent): void {
    if (event.event === "SHUTDOWN" && typeof event.data["reason"] === "string")
      this.#shutdownReason ??= event.data["reason"]
    this.#events.push(event)
    if (this.#events.length > eventsKept * 2) this.#events = this.#events.slice(-eventsKept)
    for (const reader of this.#readers) Queue.offerUnsafe(reader, event)
  }

  execute(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options: { readonly timeoutMs?: number } = {},
  ): Effect.Effect<unknown, QmpError> {
    const timeoutMs = options.timeoutMs ?? 10_000
    return Effect.callback<unknown, QmpError>((resume) => {
      if (this.#closed !== undefined)
        return resume(
          Effect.fail(new QmpError({ operation: command, reason: "closed", detail: this.#closed })),
        )
      const id = this.#nextId++
      this.#pending.set(id, { operation: command, resume })
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
      return Effect.sync(() => this.#pending.delete(id))
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeoutMs,
        orElse: () =>
          Effect.fail(
            new QmpError({
              operation: command,
              reason: "timeout",
              detail: `no answer within ${timeoutMs} ms`,
            }),
          ),
      }),
    )
  }

  get #eventStream(): Stream.Stream<QmpEvent> {
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        const queue = yield* Queue.sliding<QmpEvent, Cause.Done>(4 * eventsKept)
        yield* Effect.addFinalizer(() =>
          Effect.suspend(() => {
            this.#readers.delete(queue)
            return Queue.shutdown(queue)
          }),
        )
        for (const event of this.#events.slice(-eventsKept)) Queue.offerUnsafe(queue, event)
        if (this.#closed !== undefined) Queue.endUnsafe(queue)
        else this.#readers.add(queue)
        return Stream.fromQueue(queue)
      }),
    )
  }

  api(version: string): Qmp {
    const execute: Qmp["execute"] = (command, args, options) => this.execute(command, args, options)
    const run = (command: string, args?: Record<string, unknown>) => Effect.asVoid(execute(command, args))
    return {
      version,
      execute,
      events: this.#eventStream,
      shutdownReason: () => this.#shutdownReason,
      systemPowerdown: run("system_powerdown"),
      systemReset: run("system_reset"),
      cont: run("cont"),
      stop: run("stop"),
      // QEMU may be gone before it has answered: that is what was asked for.
      quit: run("quit").pipe(
        Effect.catchIf(
          (error) => error.reason === "closed",
          () => Effect.void,
        ),
      ),
      queryStatus: Effect.map(execute("query-status"), (value) => ({
        status: isRecord(value) ? String(value["status"]) : "unknown",
        running: isRecord(value) && value["running"] === true,
      })),
      sendKey: (keys) => run("send-key", { keys: keys.map((data) => ({ type: "qcode", data })) }),
      screendump: (path, format) =>
        run("screendump", { filename: path, ...(format === undefined ? {} : { format }) }),
    }
  }
}
