/**
 * Init gives memory back when nothing happens any more: after the boot, whose
 * garbage and code nobody needs again, and after what each event left behind.
 * Never while something happens: it holds the event loop.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import { Events } from "../Events.ts"
import { Kernel } from "../Kernel.ts"

// As long as the longest back-off: a daemon that dies again and again does not have init collect each time.
const QUIET = "30 seconds"

/** Releases memory after half a minute without an event, and then each time that events have been followed by one; for ever. */
export const releaseWhenQuiet: Effect.Effect<never, never, Kernel | Events | Scope.Scope> = Effect.gen(
  function* () {
    const kernel = yield* Kernel
    const events = yield* Events
    const happened = yield* Latch.make(false)
    yield* events.listen(() => happened.openUnsafe())
    const event = Effect.andThen(happened.await, happened.close)
    const quiet = event.pipe(
      Effect.as(false),
      Effect.timeoutOrElse({ duration: QUIET, orElse: () => Effect.succeed(true) }),
      Effect.repeat({ until: (isQuiet: boolean) => isQuiet }),
    )
    return yield* Effect.forever(Effect.andThen(quiet, Effect.andThen(kernel.releaseMemory, event)))
  },
)
