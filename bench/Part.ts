/** What a part of the bench gives. */
export interface Part {
  /** For people: tables and pictures, a line each. */
  readonly lines: ReadonlyArray<string>
  /** For `bench.json`. */
  readonly data: unknown
}

/** Pads a table's cells; the first column to the left, all others to the right. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  )
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join("  "),
  )
}
