/** A value of a line of klog's; it quotes them as Go does, which JSON can read for what occurs here. */
export const quoted = (line: string, key: string): string | undefined => {
  const match = new RegExp(`\\b${key}=("(?:[^"\\\\]|\\\\.)*")`, "u").exec(line)?.[1]
  if (match === undefined) return undefined
  try {
    return String(JSON.parse(match))
  } catch {
    return match
  }
}
