/** One question to an HTTP server on this machine. */
import * as Effect from "effect/Effect"

/** The status that `url` answers with; fails with why there was no answer, such as `ECONNREFUSED`. */
export const httpGet = (url: string): Effect.Effect<number, string> =>
  Effect.callback<number, string>((resume) => {
    // Loaded when first needed: in init's snapshot no network module may be open.
    const http = process.getBuiltinModule("node:http")
    const request = http.get(url, { agent: false }, (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode ?? 0))
    })
    request.on("error", (error: NodeJS.ErrnoException) => resume(Effect.fail(error.code ?? error.message)))
    return Effect.sync(() => request.destroy())
  })
