/**
 * What the pictures have in common: text that fits, colours for light and dark
 * pages, and a document around it all. The pictures carry no script, no font
 * and no reference to anything outside of them.
 */

/** `auto` follows the reader's preference where the viewer knows one. */
export type Theme = "auto" | "light" | "dark"

/** The colours of a picture; every one is readable on `page`, which is drawn. */
export interface Colors {
  readonly page: string
  readonly border: string
  readonly text: string
  readonly muted: string
  readonly grid: string
  readonly faint: string
  readonly green: string
  readonly red: string
  readonly amber: string
  readonly purple: string
  readonly blue: string
  readonly gray: string
  readonly paleBlue: string
  readonly paleOrange: string
  readonly orange: string
}

const light: Colors = {
  page: "#ffffff",
  border: "#d1d9e0",
  text: "#1f2328",
  muted: "#59636e",
  grid: "#d8dee4",
  faint: "#eef1f4",
  green: "#2da44e",
  red: "#cf222e",
  amber: "#bf8700",
  purple: "#8250df",
  blue: "#0969da",
  gray: "#8c959f",
  paleBlue: "#cfe3fa",
  paleOrange: "#fff1e5",
  orange: "#bc4c00",
}

const dark: Colors = {
  page: "#0d1117",
  border: "#3d444d",
  text: "#f0f6fc",
  muted: "#9198a1",
  grid: "#30363d",
  faint: "#1c2128",
  green: "#3fb950",
  red: "#f85149",
  amber: "#d29922",
  purple: "#ab7df8",
  blue: "#4493f8",
  gray: "#6e7681",
  paleBlue: "#1d3a63",
  paleOrange: "#3a2410",
  orange: "#f0883e",
}

/** A number as short as it can be with two decimals. */
export const number = (value: number): string => String(Math.round(value * 100) / 100)

// Everything that XML 1.0 does not allow in a document, escaped or not.
// oxlint-disable-next-line no-control-regex -- that is the point
const forbidden = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu

/** Text for an element or an attribute. */
export const escape = (text: string): string =>
  text
    .replaceAll(forbidden, "\ufffd")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")

// In em; as wide as DejaVu Sans, which is wider than what most readers have.
const characterWidth = (character: string): number => {
  if (/[ijl.,:;'|!()[\]/ ]/u.test(character)) return 0.37
  if (/[mwMW@%]/u.test(character)) return 0.95
  if (/[A-Z]/u.test(character)) return 0.72
  // Scripts whose characters are as wide as high.
  return (character.codePointAt(0) ?? 0) >= 0x1100 ? 1.05 : 0.62
}

/** About how wide a text is, in pixels; rather more than less. */
export const textWidth = (text: string, size: number, bold = false): number =>
  [...text].reduce((sum, character) => sum + characterWidth(character), 0) * size * (bold ? 1.08 : 1)

/** The text, cut to a width in pixels with an ellipsis when it does not fit. */
export const fit = (text: string, width: number, size: number, bold = false): string => {
  if (textWidth(text, size, bold) <= width) return text
  const characters = [...text]
  while (characters.length > 0 && textWidth(`${characters.join("")}\u2026`, size, bold) > width)
    characters.pop()
  return `${characters.join("").trimEnd()}\u2026`
}

/** An element; attributes that are undefined are left out, children are markup. */
export const element = (
  tag: string,
  attributes: Readonly<Record<string, string | number | undefined>>,
  ...children: ReadonlyArray<string>
): string => {
  const written = Object.entries(attributes)
    .flatMap(([key, value]) =>
      value === undefined ? [] : [` ${key}="${typeof value === "number" ? number(value) : escape(value)}"`],
    )
    .join("")
  return children.length === 0 ? `<${tag}${written}/>` : `<${tag}${written}>${children.join("")}</${tag}>`
}

/** What is told when the pointer rests on an element. */
export const tooltip = (text: string): string => element("title", {}, escape(text))

/** Milliseconds as people say them: `0.42 ms`, `38 ms`, `1.23 s`, `83.7 s`. */
export const duration = (ms: number): string => {
  if (ms >= 9_995) return `${(ms / 1000).toFixed(1)} s`
  if (ms >= 999.5) return `${(ms / 1000).toFixed(2)} s`
  if (ms >= 9.95) return `${ms.toFixed(0)} ms`
  return `${ms.toFixed(ms >= 0.995 || ms === 0 ? 1 : 2)} ms`
}

/**
 * A whole picture: a page with a rounded border and its own background, so
 * that it is as readable on a dark page as on a light one.
 */
export const document = (options: {
  readonly width: number
  readonly height: number
  /** What the picture is, for those who cannot see it. */
  readonly title: string
  readonly description: string
  readonly theme: Theme
  /** The style sheet in given colours. */
  readonly rules: (colors: Colors) => ReadonlyArray<string>
  readonly body: ReadonlyArray<string>
}): string => {
  const common = (colors: Colors) => [
    `.page{fill:${colors.page};stroke:${colors.border}}`,
    `text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;font-size:12px;fill:${colors.text}}`,
    `.title{font-size:18px;font-weight:600}`,
    `.muted{fill:${colors.muted}}`,
    `.halo{paint-order:stroke;stroke:${colors.page};stroke-width:5px;stroke-linejoin:round}`,
  ]
  const sheet = (colors: Colors) => [...common(colors), ...options.rules(colors)].join("")
  const style =
    options.theme === "auto"
      ? `${sheet(light)}@media (prefers-color-scheme:dark){${sheet(dark)}}`
      : sheet(options.theme === "dark" ? dark : light)
  const { height, width } = options
  return `${element(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height,
      viewBox: `0 0 ${number(width)} ${number(height)}`,
      role: "img",
    },
    `\n${element("title", {}, escape(options.title))}`,
    `\n${element("desc", {}, escape(options.description))}`,
    `\n<style>${style}</style>\n`,
    `${element("rect", { class: "page", x: 0.5, y: 0.5, width: width - 1, height: height - 1, rx: 6 })}\n`,
    `${options.body.join("\n")}\n`,
  )}\n`
}

/** A mark of a legend and what it stands for. `draw` draws it in a box 22 wide whose middle is at y 0. */
export interface LegendEntry {
  readonly label: string
  readonly draw: string
}

/** A legend in lines no wider than `width`; tells its height. */
export const legend = (
  entries: ReadonlyArray<LegendEntry>,
  at: { readonly x: number; readonly y: number; readonly width: number },
): { readonly body: ReadonlyArray<string>; readonly height: number } => {
  let x = 0
  let y = 0
  const body = entries.map(({ draw, label }) => {
    const width = 28 + textWidth(label, 12) + 22
    if (x > 0 && x + width > at.width) {
      x = 0
      y += 20
    }
    const entry = element(
      "g",
      { transform: `translate(${number(at.x + x)} ${number(at.y + y)})` },
      draw,
      element("text", { x: 28, y: 4, class: "muted" }, escape(label)),
    )
    x += width
    return entry
  })
  return { body, height: y + 20 }
}
