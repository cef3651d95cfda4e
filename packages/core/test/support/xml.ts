/**
 * A reader of the XML that pictures are made of, strict enough that what it
 * takes is well-formed: elements, attributes in double quotes, the escapes.
 */
export interface Xml {
  readonly name: string
  readonly attributes: ReadonlyMap<string, string>
  readonly classes: ReadonlyArray<string>
  readonly children: ReadonlyArray<Xml>
  /** The text directly in it. */
  readonly text: string
  /** All elements of that name in it. */
  readonly all: (name: string) => ReadonlyArray<Xml>
  /** What `text` elements in it and their parts say. */
  readonly texts: () => ReadonlyArray<string>
  /** A number that is an attribute. */
  readonly number: (attribute: string) => number
}

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"' }

const unescape = (text: string): string => {
  if (/&(?!(amp|lt|gt|quot);)/u.test(text) || text.includes("<"))
    throw new Error(`not escaped: ${text.slice(0, 80)}`)
  return text.replaceAll(/&(\w+);/gu, (_, name: string) => entities[name] ?? "")
}

const make = (
  name: string,
  attributes: ReadonlyMap<string, string>,
  children: Array<Xml>,
  text: string,
): Xml => {
  const all = (wanted: string): ReadonlyArray<Xml> =>
    children.flatMap((child) => [...(child.name === wanted ? [child] : []), ...child.all(wanted)])
  return {
    name,
    attributes,
    classes: (attributes.get("class") ?? "").split(" "),
    children,
    text,
    all,
    texts: () => [...all("text"), ...all("tspan")].map((one) => one.text).filter((said) => said !== ""),
    number: (attribute) => {
      const value = Number(attributes.get(attribute) ?? Number.NaN)
      if (!Number.isFinite(value))
        throw new Error(`<${name}>: ${attribute} is no number: ${attributes.get(attribute)}`)
      return value
    },
  }
}

/** Reads a document of one element; throws what is wrong with it. */
export const parseXml = (source: string): Xml => {
  // oxlint-disable-next-line no-control-regex -- what XML 1.0 forbids
  const forbidden = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/u.exec(source)
  if (forbidden !== null) throw new Error(`a character that XML does not allow at ${forbidden.index}`)
  let at = 0
  const element = (): Xml => {
    const open = /<([a-z]+)((?: [a-zA-Z-]+(?:="[^"<]*"))*)(\/?)>/uy
    open.lastIndex = at
    const match = open.exec(source)
    if (match === null) throw new Error(`no element at ${at}: ${source.slice(at, at + 80)}`)
    at = open.lastIndex
    const [, name = "", written = "", closed] = match
    const attributes = new Map<string, string>()
    for (const [, key = "", value = ""] of written.matchAll(/ ([a-zA-Z-]+)="([^"]*)"/gu)) {
      if (attributes.has(key)) throw new Error(`<${name}>: ${key} twice`)
      if (/NaN|Infinity|undefined/u.test(value)) throw new Error(`<${name}>: ${key}="${value}"`)
      attributes.set(key, unescape(value))
    }
    const children: Array<Xml> = []
    let text = ""
    if (closed === "/") return make(name, attributes, children, text)
    for (;;) {
      const next = source.indexOf("<", at)
      if (next < 0) throw new Error(`<${name}> is not closed`)
      text += unescape(source.slice(at, next))
      at = next
      const end = `</${name}>`
      if (source.startsWith(end, at)) {
        at += end.length
        break
      }
      children.push(element())
    }
    return make(name, attributes, children, text.trim())
  }
  const root = element()
  if (source.slice(at).trim() !== "") throw new Error(`more after </${root.name}>`)
  return root
}
