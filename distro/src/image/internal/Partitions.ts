/**
 * The partitions of a kiOS disk.
 */
import { PARTITION_TYPE } from "@kios/stages-mount/DataPartition"

/**
 * Type GUID of an EFI system partition.
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 *
 * const isEsp = (type: string) => type.toLowerCase() === DiskImage.ESP_TYPE
 * ```
 */
export const ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

/**
 * Type GUID by which kiOS knows its data partition.
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 *
 * const sfdisk = `label: gpt\ntype=${DiskImage.DATA_TYPE}\n`
 * ```
 */
export const DATA_TYPE = PARTITION_TYPE

/**
 * Directories of every data partition; see the boot contract in the design.
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 *
 * const mkdir = ["mkdir", "-p", ...DiskImage.DATA_DIRECTORIES]
 * ```
 */
export const DATA_DIRECTORIES = [
  "meta/etc",
  "meta/log",
  "data/oci",
  "data/pods",
  "data/cni",
  "modules",
] as const
