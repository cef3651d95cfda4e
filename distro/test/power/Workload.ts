/**
 * What a pod writes while the power may go: transaction after transaction, each
 * synced to the disk before the next, so that after a cut it is known what must
 * be there. And what is not synced, as noise around it.
 */
import { createHash } from "node:crypto"

/** On the data partition itself, seen from the probe's pod and from the partition's root. */
const guest = "/host/run/kios/data/power"
const here = "power"

/** Deleted again two transactions later. */
const isShortLived = (number: number) => number % 4 === 0

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")
const settingOf = (number: number) => `setting ${number}\n`
const counterOf = (number: number) => String(number).padStart(8, "0")

/** Made once: directories, and a writer that syncs nothing and makes, overwrites and deletes files. */
export const prepare = String.raw`
set -e
mkdir -p ${guest} /host/etc/power
sync ${guest} /host/run/kios/data /host/etc/power /host/etc
(
  i=0
  while :; do
    i=$((i + 1))
    f=/host/var/lib/kubelet/noise-$((i % 7))
    [ $((i % 5)) -eq 0 ] && rm -f $f
    dd if=/dev/urandom of=$f bs=4096 count=$((i % 40 + 1)) conv=notrunc 2>/dev/null
    echo $i >> /host/var/log/noise
    sleep 0.1
  done
) >/dev/null 2>&1 &
`

/**
 * The script of one transaction (from 1): a new file, one replaced by rename(2),
 * one appended to, one overwritten in place, one made through the overlay on
 * /etc, one deleted. When it has ended, all of it is synced. Prints the new
 * file's checksum.
 */
export const transaction = (number: number): string => String.raw`
set -e
cd ${guest}
head -c ${((number * 7919) % 60_000) + 1} /dev/urandom > file-${number}
sync file-${number} .
printf '${settingOf(number).trimEnd()}\n' > setting.new
sync setting.new
mv setting.new setting
printf '%s\n' ${number} >> journal
printf ${counterOf(number)} | dd of=counter bs=8 conv=notrunc,fsync 2>/dev/null
printf '${settingOf(number).trimEnd()}\n' > /host/etc/power/${number}
sync setting journal counter /host/etc/power/${number} /host/etc/power
${number > 2 && isShortLived(number - 2) ? `rm file-${number - 2}` : ""}
sync .
sha256sum file-${number} | cut -d ' ' -f 1
`

/** What a mounted state was found to have. */
export interface Found {
  /** SHA-256 of each file by its path from the partition's root. */
  readonly files: ReadonlyMap<string, string>
  readonly journal: string
}

/**
 * Whether this may be there of an append that was not synced: its beginning,
 * and zeros where the file's new size has reached the disk before its bytes, as
 * ext4 allows (Documentation/filesystems/ext4/journal.rst: only metadata is
 * journalled).
 */
const isPartOf = (appended: string, found: string): boolean =>
  found.length <= appended.length &&
  [...found].every((byte, index) => byte === appended[index] || byte === "\0")

/**
 * What is wrong with a state in which the transactions up to `done` were
 * synced: the next one may have happened in part. `checksums[n]` is that of
 * transaction n's file.
 */
export const violations = (
  found: Found,
  done: number,
  checksums: ReadonlyArray<string>,
): ReadonlyArray<string> => {
  const wrong: Array<string> = []
  const has = (file: string, allowed: ReadonlyArray<string>) => {
    const sum = found.files.get(file)
    if (sum === undefined) wrong.push(`${file} is lost`)
    else if (!allowed.includes(sum)) wrong.push(`${file} has other content`)
  }
  for (let number = 1; number <= done; number++) {
    const deleted = isShortLived(number) ? number + 2 : Number.POSITIVE_INFINITY
    const file = `${here}/file-${number}`
    if (deleted > done + 1) has(file, [checksums[number] ?? ""])
    else if (deleted <= done && found.files.has(file)) wrong.push(`${file} is back`)
    has(`meta/etc/power/${number}`, [sha256(settingOf(number))])
  }
  if (done > 0) {
    const either = [done, done + 1]
    has(
      `${here}/setting`,
      either.map((number) => sha256(settingOf(number))),
    )
    has(
      `${here}/counter`,
      either.map((number) => sha256(counterOf(number))),
    )
    const lines = Array.from({ length: done }, (_, index) => `${index + 1}\n`).join("")
    if (!found.journal.startsWith(lines)) wrong.push(`${here}/journal has lost lines`)
    else if (!isPartOf(`${done + 1}\n`, found.journal.slice(lines.length)))
      wrong.push(`${here}/journal has other lines`)
  }
  return wrong
}

/** A script that tells of a partition mounted at `mounted` what {@link parse} reads. */
export const report = (mounted: string): string => String.raw`
cd ${mounted} && find ${here} meta/etc -type f -exec sha256sum {} + | sed 's/^/file /'
[ -f ${here}/journal ] && echo "journal $(base64 -w 0 ${here}/journal)"
cd /
`

/** Reads what {@link report} printed. */
export const parse = (lines: ReadonlyArray<string>): Found => ({
  files: new Map(
    lines.flatMap((line) => {
      const [, sum, file] = /^file ([0-9a-f]{64}) {2}(.+)$/u.exec(line) ?? []
      return sum === undefined || file === undefined ? [] : [[file, sum] as const]
    }),
  ),
  journal: Buffer.from(
    lines.flatMap((line) => (line.startsWith("journal ") ? [line.slice(8)] : [])).join(""),
    "base64",
  ).toString("latin1"),
})
