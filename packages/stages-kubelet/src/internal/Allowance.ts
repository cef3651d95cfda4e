/**
 * How much a client may send: some at once, and then at a rate.
 */

/** What is allowed; takes it, if it is. */
export interface Allowance {
  /** @param now milliseconds on a monotonic clock */
  readonly take: (amount: number, now: number) => boolean
}

/** @param burst how much at once @param perSecond how much of it comes back */
export const make = (burst: number, perSecond: number): Allowance => {
  let left = burst
  let at: number | undefined
  return {
    take: (amount, now) => {
      left = Math.min(burst, left + ((now - (at ?? now)) / 1000) * perSecond)
      at = now
      if (left < amount) return false
      left -= amount
      return true
    },
  }
}
