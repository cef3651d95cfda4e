/**
 * `npm run docs`: writes the pages that are made from the sources.
 */
import { filesMarkdown } from "@kios/distro/docs/Files"
import { recipe } from "@kios/distro/recipe"
import { Effect } from "effect"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { writeReference } from "./reference.ts"

const page = fileURLToPath(new URL("../docs/files.md", import.meta.url))

try {
  fs.writeFileSync(page, await Effect.runPromise(filesMarkdown(recipe)))
  console.log("docs/files.md")
  console.log(`docs/reference: ${writeReference().length} pages changed`)
} catch (error) {
  console.error(`docs/files.md was not written: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
