/** The lines of a file that say something, with their numbers from 1: no comments, no blank ones. */
export const lines = (text: string): ReadonlyArray<readonly [line: number, text: string]> =>
  text
    .split("\n")
    .map((line, index) => [index + 1, line.trim()] as const)
    .filter(([, line]) => line !== "" && !line.startsWith("#"))
