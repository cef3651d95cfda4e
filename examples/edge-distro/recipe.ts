/** What is in this distro's EFI: the reference distro's files with our init, our site and no sample pod. */
import { local, type Recipe } from "@kios/distro/ImageRecipe"
import { recipe as reference } from "@kios/distro/recipe"
import { fileURLToPath } from "node:url"
import * as Site from "./Site.ts"

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url))

export const recipe: Recipe = {
  ...reference,
  name: "Edge",
  init: here("init.ts"),
  files: [
    ...reference.files.filter((file) => !file.path.endsWith("/manifests/hello.yaml")),
    { path: Site.FILE, mode: 0o644, from: local(here("site.json")), why: "the site stage reads it" },
  ],
}
