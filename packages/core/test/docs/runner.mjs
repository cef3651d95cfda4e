// Runs modules one after the other, each given as a path on a line of stdin, and
// answers each with a line: `ok`, or the error as JSON.
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"

let current = () => {}
const fail = (error) => current(error)
process.on("uncaughtException", fail)
process.on("unhandledRejection", fail)
const say = process.stdout.write.bind(process.stdout)
// What an example prints is not an answer.
process.stdout.write = () => true

for await (const file of createInterface({ input: process.stdin })) {
  const error = await new Promise((resolve) => {
    current = (reason) => resolve(reason ?? new Error("rejected with nothing"))
    // A turn of the event loop later, so that a rejection that nobody handles is seen.
    import(pathToFileURL(file).href).then(() => setImmediate(() => resolve(undefined)), resolve)
  })
  say(error === undefined ? "ok\n" : `${JSON.stringify(String(error?.stack ?? error))}\n`)
}
process.exit(0)
