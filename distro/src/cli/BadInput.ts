/**
 * What is wrong with a file or option that the user named.
 */
import { Data, Runtime } from "effect"
import { exitCodes } from "./Output.ts"

/** A file named on the command line cannot be read, written or used, or an option does not fit. */
export class BadInput extends Data.TaggedError("BadInput")<{
  readonly file: string
  readonly reason: string
}> {
  override readonly [Runtime.errorExitCode] = exitCodes.usage
  override get message(): string {
    return `${this.file}: ${this.reason}`
  }
}
