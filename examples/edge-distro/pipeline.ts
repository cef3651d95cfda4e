/**
 * The reference distro's stages, with the host name's replaced and the site's
 * added. A stage that does not fit where it is put does not compile.
 */
import * as Pipeline from "@kios/core/Pipeline"
import { pipeline as reference } from "@kios/distro/pipeline"
import * as AssetName from "./AssetName.ts"
import * as Site from "./Site.ts"

const named = Pipeline.replace(reference, "hostname", AssetName.stage)

export const pipeline = Pipeline.insertAfter(named, "asset-name", Site.stage)
