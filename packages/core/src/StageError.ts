/**
 * What goes wrong with a stage, whatever it does.
 */
import * as Data from "effect/Data"

/**
 * A stage was not up in time.
 *
 * @example
 * ```ts
 * import { StageTimeout } from "@kios/core/Pipeline"
 *
 * new StageTimeout({ stage: "disk", timeout: "30s" }).message // 'stage "disk" was not up within 30s'
 * ```
 */
export class StageTimeout extends Data.TaggedError("StageTimeout")<{
  readonly stage: string
  readonly timeout: string
}> {
  override get message(): string {
    return `stage "${this.stage}" was not up within ${this.timeout}`
  }
}

/**
 * A stage was not started because an optional stage that it needs is not up.
 *
 * @example
 * ```ts
 * import { StageSkipped } from "@kios/core/Pipeline"
 *
 * new StageSkipped({ stage: "report", missing: ["example/Disk"] }).message
 * // 'stage "report" was skipped: example/Disk did not come up'
 * ```
 */
export class StageSkipped extends Data.TaggedError("StageSkipped")<{
  readonly stage: string
  readonly missing: ReadonlyArray<string>
}> {
  override get message(): string {
    return `stage "${this.stage}" was skipped: ${this.missing.join(", ")} did not come up`
  }
}

/**
 * A required stage failed: the boot is over. `reason` is for people, `cause` for programs.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const boot = Layer.build(Pipeline.make([]).layer).pipe(
 *   Effect.catchTag("StageFailed", (error) => Effect.logError(`${error.stage}: ${error.reason}`)),
 * )
 * ```
 */
export class StageFailed extends Data.TaggedError("StageFailed")<{
  readonly stage: string
  readonly reason: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `stage "${this.stage}" failed: ${this.reason}`
  }
}
