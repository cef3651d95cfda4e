/** What the state machine needs to know of a process, with its defaults. */
import * as Duration from "effect/Duration"
import * as RestartPolicy from "../RestartPolicy.ts"
import type { ProcessSpec } from "../Supervisor.ts"
import type * as Machine from "./SupervisorMachine.ts"

/** The settings of a process. */
export const settingsOf = (spec: ProcessSpec): Machine.Settings => {
  const startTimeout = Duration.fromInputUnsafe(spec.startTimeout ?? "60 seconds")
  return {
    policy: RestartPolicy.inMilliseconds(spec.restart ?? RestartPolicy.standard),
    startTimeoutMs: Duration.toMillis(startTimeout),
    notReady: `not ready within ${Duration.format(startTimeout)} (${spec.readiness.description})`,
    stopTimeoutMs: Duration.toMillis(Duration.fromInputUnsafe(spec.stopTimeout ?? "10 seconds")),
    liveness: spec.liveness === undefined ? undefined : { failures: spec.liveness.failures },
  }
}
