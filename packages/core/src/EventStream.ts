/**
 * The node's events as a stream. A module of its own, because init, which
 * publishes them, has no use for streams of them in its bundle.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { Events, KEPT, type Recorded } from "./Events.ts"

/**
 * Events from the moment that the stream is run. Nobody waits for a reader: one
 * that is too slow misses the oldest, as the sequence numbers show.
 *
 * @example
 * ```ts
 * import { events } from "@kios/core/EventStream"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * const alarm = Stream.runForEach(events, (event) =>
 *   event.kind === "process-unresponsive" ? Effect.logError(`${event.process} hangs`) : Effect.void,
 * )
 * ```
 */
export const events: Stream.Stream<Recorded, never, Events> = Stream.callback<Recorded, never, Events>(
  (queue) =>
    Effect.flatMap(Events, (service) => service.listen((event) => void Queue.offerUnsafe(queue, event))),
  { bufferSize: KEPT, strategy: "sliding" },
)
