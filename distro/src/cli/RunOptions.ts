/**
 * The words of `kios run`'s command line, checked before anything is started.
 */
import { Option } from "effect"
import { Flag } from "effect/cli"
import type { Goal } from "../vm/Milestones.ts"

/** One `--until`: `pod=NAME`, `pod=NAMESPACE/NAME` or `milestone=NAME`. */
export type Until = { readonly kind: "pod" | "milestone"; readonly name: string }

/** Reads one `--until`; the namespace of a pod is `default` unless given. */
export const parseUntil = (text: string): Until | undefined => {
  const match = /^(pod|milestone)=([a-z0-9][a-z0-9./-]*)$/u.exec(text)
  if (match === null) return undefined
  const [, kind, name = ""] = match
  if (kind === "milestone") return name.includes("/") ? undefined : { kind, name }
  return { kind: "pod", name: name.includes("/") ? name : `default/${name}` }
}

/** What all of them together ask for. */
export const goalOf = (untils: ReadonlyArray<Until>): Goal => ({
  pods: untils.filter((until) => until.kind === "pod").map((until) => until.name),
  milestones: untils.filter((until) => until.kind === "milestone").map((until) => until.name),
})

/** Reads `90s`, `5m` or plain seconds into seconds. */
export const parseSeconds = (text: string): number | undefined => {
  const match = /^(\d+(?:\.\d+)?)(s|m|h)?$/u.exec(text)
  if (match === null) return undefined
  const seconds = Number(match[1]) * { s: 1, m: 60, h: 3600 }[(match[2] ?? "s") as "s" | "m" | "h"]
  return seconds > 0 ? seconds : undefined
}

/** Reads `HOST:GUEST`; host port 0 chooses a free one. */
export const parseForward = (
  text: string,
): { readonly hostPort: number; readonly guestPort: number } | undefined => {
  const match = /^(\d{1,5}):(\d{1,5})$/u.exec(text)
  if (match === null) return undefined
  const [hostPort, guestPort] = [Number(match[1]), Number(match[2])]
  return hostPort < 65536 && guestPort > 0 && guestPort < 65536 ? { hostPort, guestPort } : undefined
}

/** A flag whose text is read by one of the functions above. */
export const parsed =
  <A>(parse: (text: string) => A | undefined, expected: string) =>
  (flag: Flag.Flag<string>): Flag.Flag<A> =>
    Flag.filterMap(
      flag,
      (text) => Option.fromNullishOr(parse(text)),
      () => expected,
    )
