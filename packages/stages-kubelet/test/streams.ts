// Byte streams that somebody who means harm, or is broken, might send; the same for the same seed.
import { calls, rule, sasl } from "./dbus/client.ts"

/** Numbers from 0 to below `n`: mulberry32. */
export const randomOf = (seed: number) => {
  let state = seed
  return (n: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % n
  }
}

const valid: ReadonlyArray<Uint8Array> = [
  calls.hello(),
  calls.addMatch(),
  calls.addMatch(rule.repeat(3)),
  calls.get(),
  calls.get("IdleHint"),
  calls.inhibit(),
  calls.inhibit("sleep"),
  calls.inhibit("shutdown", "delay", 4, 1),
  calls.unknown(),
]

/** A conversation as the kubelet has it, more or less, and what may have happened to it. */
export const dbusStream = (seed: number): Buffer => {
  const random = randomOf(seed)
  const noise = (length: number) => Buffer.from(Array.from({ length }, () => random(256)))
  if (random(10) === 0) return noise(random(400))
  const parts: Array<Uint8Array> = [Buffer.from(random(8) === 0 ? "\0AUTH EXTERNAL 30\r\nBEGIN\r\n" : sasl)]
  if (random(12) > 0) parts.push(calls.hello())
  for (let n = random(6); n > 0; n--)
    parts.push(random(9) === 0 ? noise(random(64)) : (valid[random(valid.length)] ?? noise(8)))
  const bytes = Buffer.concat(parts)
  for (let n = random(4); n > 0; n--) {
    const at = random(bytes.length)
    // What breaks most: lengths, and what is just beyond them.
    const value = [0, 1, 0x7f, 0x80, 0xff, random(256)][random(6)] ?? 0
    bytes[at] = value
  }
  const cut = random(4) === 0 ? random(bytes.length) : bytes.length
  return bytes.subarray(0, cut)
}

/** Commands, and what is none, somewhere. */
export const commandStream = (seed: number): Buffer => {
  const random = randomOf(seed)
  const length = random(30)
  const wild = random(3) === 0
  return Buffer.from(Array.from({ length }, () => (wild || random(12) === 0 ? random(256) : 1 + random(4))))
}

/** Cuts bytes into portions. */
export const portions = (bytes: Buffer, seed: number): ReadonlyArray<Buffer> => {
  const random = randomOf(~seed)
  const cut: Array<Buffer> = []
  for (let at = 0; at < bytes.length;) {
    const length = 1 + random(random(3) === 0 ? 4 : 200)
    cut.push(bytes.subarray(at, at + length))
    at += length
  }
  return cut
}
