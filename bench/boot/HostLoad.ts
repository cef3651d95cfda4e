/**
 * How much of the host's processors other programs took while a boot was
 * measured: a figure from a busy host is worth little, and should say so.
 */
import * as fs from "node:fs"

/** Clock ticks (USER_HZ), summed over all processors. */
export interface Reading {
  /** Everything but idle and waiting for disks. */
  readonly busy: number
  readonly total: number
  /** Our own: this process's and the virtual machine's. */
  readonly own: number
}

/** `cpu  user nice system idle iowait irq softirq steal ...` of proc_stat(5). Undefined where it tells nothing. */
export const parseStat = (text: string): { readonly busy: number; readonly total: number } | undefined => {
  const line = /^cpu +(.*)$/mu.exec(text)?.[1]?.split(/ +/u).map(Number) ?? []
  // guest and guest_nice are counted in user and nice already.
  const times = line.slice(0, 8)
  const total = times.reduce((a, b) => a + b, 0)
  const [, , , idle = 0, iowait = 0] = times
  return total > 0 && Number.isFinite(total) ? { total, busy: total - idle - iowait } : undefined
}

/** utime and stime of proc_pid_stat(5), ticks; the name before them may hold anything. */
export const parseProcess = (text: string): number => {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0)
}

const TICKS_PER_SECOND = 100

/** A reading now, for a machine whose QEMU is `pid`; undefined where /proc does not tell. */
export const read = (pid: number): Reading | undefined => {
  try {
    const host = parseStat(fs.readFileSync("/proc/stat", "utf8"))
    const machine = parseProcess(fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
    const { system, user } = process.cpuUsage()
    return host === undefined
      ? undefined
      : { ...host, own: machine + ((system + user) / 1e6) * TICKS_PER_SECOND }
  } catch {
    return undefined
  }
}

/** The share of all processors, 0 to 1, that others took between two readings. */
export const others = (from: Reading | undefined, to: Reading | undefined): number | undefined => {
  if (from === undefined || to === undefined || to.total <= from.total) return undefined
  const share = (to.busy - from.busy - (to.own - from.own)) / (to.total - from.total)
  return Math.min(1, Math.max(0, share))
}
