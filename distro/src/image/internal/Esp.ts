/**
 * The EFI system partition inside a disk image, made by mtools: FAT32 with the
 * UKI at the default path of removable media.
 *
 * Source: UEFI specification, chapter 13.3.
 */
import { Effect } from "effect"
import * as path from "node:path"
import type { ImageError } from "../ImageError.ts"
import { HostTools, type Tool } from "../HostTools.ts"
import { SECTOR } from "./Gpt.ts"

/** From this size on, clusters have 4 KiB: firmware reads a big file in far fewer steps. */
export const WIDE_CLUSTERS_MIB = 264

export interface EspSlot {
  /** Directory to work in; the image is the file `image` in it. */
  readonly work: string
  readonly image: string
  /** Where in the image, bytes. */
  readonly start: number
  readonly size: number
  readonly uuid: string
  readonly efi: string
  /** Name of the EFI in EFI/BOOT. */
  readonly boot: string
  readonly addon: string | undefined
  /** Seconds since 1970, not before 1980. */
  readonly time: number
}

export const writeEsp = (esp: EspSlot): Effect.Effect<void, ImageError> =>
  Effect.gen(function* () {
    const tools = yield* HostTools
    const image = ["-i", `${esp.image}@@${esp.start}`]
    // MTOOLSRC: the user's own settings for drives are not ours.
    const env = { SOURCE_DATE_EPOCH: String(esp.time), MTOOLSRC: "/dev/null" }
    const clusterSectors = esp.size >= WIDE_CLUSTERS_MIB * 2 ** 20 ? "8" : "1"
    const geometry = ["-h", "64", "-s", "32", "-H", String(esp.start / SECTOR)]
    const run = (tool: Tool, args: ReadonlyArray<string>) =>
      tools.run({ tool, cwd: esp.work, env, args: [...image, ...args] })
    yield* run("mformat", [
      "-F",
      "-T",
      String(esp.size / SECTOR),
      ...geometry,
      "-c",
      clusterSectors,
      "-N",
      esp.uuid.slice(0, 8),
      "-v",
      "KIOS",
      "::",
    ])
    yield* run("mmd", ["::EFI", "::EFI/BOOT"])
    yield* run("mcopy", [path.resolve(esp.efi), `::EFI/BOOT/${esp.boot}`])
    if (esp.addon !== undefined) {
      const directory = `::EFI/BOOT/${esp.boot}.extra.d`
      yield* run("mmd", [directory])
      yield* run("mcopy", [path.resolve(esp.addon), `${directory}/kios.addon.efi`])
    }
  })
