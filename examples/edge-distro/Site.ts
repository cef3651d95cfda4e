/**
 * A stage of this distro's own: which site the node belongs to, from a file
 * of the image. Pods find it at /run/edge/site.
 */
import { BootReport } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

const SiteFile = Schema.fromJsonString(
  Schema.Struct({ site: Schema.NonEmptyString, region: Schema.NonEmptyString }),
)

/** Where build.ts puts site.json. */
export const FILE = "/lib/kios/edge/site.json"

/** The site that the node belongs to. */
export class Site extends Context.Service<Site, typeof SiteFile.Type>()("edge/Site") {}

/** The image's site file is not what it should be. */
export class SiteInvalid extends Data.TaggedError("SiteInvalid")<{ readonly reason: string }> {
  override get message(): string {
    return `${FILE}: ${this.reason}; build the image again with a site.json of { "site": ..., "region": ... }`
  }
}

/** The stage: provides {@link Site} and tells the milestone `edge-site`. */
export const stage = Stage.make({
  name: "site",
  description: "which site this node belongs to",
  requires: [EphemeralFilesystems, Hostname],
  provides: [Site],
  layer: Layer.effect(
    Site,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const report = yield* BootReport
      const { name } = yield* Hostname
      const text = yield* kernel.readText(FILE)
      const site = yield* Effect.mapError(
        Schema.decodeEffect(SiteFile)(text, { errors: "all" }),
        (error) => new SiteInvalid({ reason: error.message }),
      )
      yield* kernel.makeDirectory("/run/edge")
      yield* kernel.writeFile("/run/edge/site", `${site.region}/${site.site}\n`)
      yield* report.milestone("edge-site", { site: site.site, node: name })
      return site
    }),
  ),
})
