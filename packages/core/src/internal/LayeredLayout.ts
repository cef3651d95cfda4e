/**
 * Where the boxes of a layered graph go and how its edges run between them,
 * after Sugiyama, Tagawa and Toda (1981): an edge that spans layers passes
 * through a slot in each of them, edges from one box share their slots, the
 * order within a layer is the one with the fewest crossings that a few sweeps
 * find, and each box is as near to its neighbours' height as the order allows.
 */

export interface LayoutNode {
  readonly name: string
  readonly layer: number
  readonly height: number
}

export interface LayoutEdge {
  readonly from: string
  readonly to: string
  /** How much it pulls its ends to the same height. */
  readonly weight: number
}

export interface Layout {
  /** The middle of each box, from 0 on. */
  readonly y: ReadonlyMap<string, number>
  /** The heights at which an edge passes the layers between its ends, in their order. */
  readonly between: (edge: LayoutEdge) => ReadonlyArray<number>
  readonly height: number
}

interface Slot {
  readonly height: number
  readonly layer: number
  /** Neighbours in the layers left and right of it. */
  readonly left: Array<{ readonly slot: Slot; readonly weight: number }>
  readonly right: Array<{ readonly slot: Slot; readonly weight: number }>
  position: number
  y: number
}

const GAP = 16
const LINE_HEIGHT = 4
const SWEEPS = 24
const SETTLE = 80
// A line through several layers is straight before a box is in the middle of its neighbours.
const STRAIGHT = 8

const crossings = (layers: ReadonlyArray<ReadonlyArray<Slot>>): number => {
  let count = 0
  for (const layer of layers) {
    const ends = layer.flatMap((slot) =>
      slot.right.map(({ slot: to }) => [slot.position, to.position] as const),
    )
    for (const [index, [from, to]] of ends.entries())
      for (const [otherFrom, otherTo] of ends.slice(index + 1))
        if ((from - otherFrom) * (to - otherTo) < 0) count += 1
  }
  return count
}

/** Orders a layer by the mean position of each slot's neighbours on one side. */
const reorder = (layer: Array<Slot>, side: "left" | "right"): void => {
  const mean = (slot: Slot) =>
    slot[side].length === 0
      ? slot.position
      : slot[side].reduce((sum, { slot: other }) => sum + other.position, 0) / slot[side].length
  const means = new Map(layer.map((slot) => [slot, mean(slot)]))
  layer.sort((a, b) => (means.get(a) ?? 0) - (means.get(b) ?? 0) || a.position - b.position)
  for (const [position, slot] of layer.entries()) slot.position = position
}

/** Swaps neighbours in a layer while that saves crossings. */
const transpose = (layers: ReadonlyArray<Array<Slot>>): void => {
  const between = (a: Slot, b: Slot) => {
    let count = 0
    for (const side of ["left", "right"] as const)
      for (const one of a[side])
        for (const other of b[side]) if (one.slot.position > other.slot.position) count += 1
    return count
  }
  for (let round = 0, better = true; better && round < SWEEPS; round += 1) {
    better = false
    for (const layer of layers)
      for (let index = 0; index + 1 < layer.length; index += 1) {
        const [a, b] = [layer[index], layer[index + 1]]
        if (a === undefined || b === undefined || between(a, b) <= between(b, a)) continue
        layer[index] = b
        layer[index + 1] = a
        b.position = index
        a.position = index + 1
        better = true
      }
  }
}

/**
 * Places the slots of a layer, in their order and without overlap, where the
 * sum of their weighted squared distances from where they would like to be is
 * least (pool adjacent violators).
 */
const place = (
  layer: ReadonlyArray<Slot>,
  wish: (slot: Slot) => { readonly y: number; readonly weight: number },
): void => {
  const blocks: Array<{ sum: number; weight: number; size: number }> = []
  const offsets: Array<number> = []
  let offset = 0
  for (const [index, slot] of layer.entries()) {
    if (index > 0) offset += ((layer[index - 1]?.height ?? 0) + slot.height) / 2 + GAP
    offsets.push(offset)
    const { weight, y } = wish(slot)
    let block = { sum: (y - offset) * weight, weight, size: 1 }
    for (
      let last = blocks.at(-1);
      last !== undefined && last.sum / last.weight >= block.sum / block.weight;
      last = blocks.at(-1)
    ) {
      block = { sum: last.sum + block.sum, weight: last.weight + block.weight, size: last.size + block.size }
      blocks.pop()
    }
    blocks.push(block)
  }
  let index = 0
  for (const block of blocks)
    for (let of = 0; of < block.size; of += 1, index += 1) {
      const slot = layer[index]
      if (slot !== undefined) slot.y = block.sum / block.weight + (offsets[index] ?? 0)
    }
}

/**
 * Lays out a graph whose edges all lead from a lower to a higher layer.
 *
 * @example
 * ```ts
 * import * as LayeredLayout from "@kios/core/internal/LayeredLayout"
 *
 * const layout = LayeredLayout.make([{ name: "a", layer: 0, height: 30 }], [])
 * layout.y.get("a") // 15
 * ```
 */
export const make = (nodes: ReadonlyArray<LayoutNode>, edges: ReadonlyArray<LayoutEdge>): Layout => {
  const layers: Array<Array<Slot>> = []
  const add = (layer: number, height: number): Slot => {
    while (layers.length <= layer) layers.push([])
    const row = layers[layer] ?? []
    const slot: Slot = { height, layer, left: [], right: [], position: row.length, y: 0 }
    row.push(slot)
    return slot
  }
  const boxes = new Map(nodes.map((node) => [node.name, add(node.layer, node.height)]))
  const lines = new Map<string, Slot>()
  const lineAt = (from: string, layer: number) => {
    const key = `${layer} ${from}`
    const slot = lines.get(key) ?? add(layer, LINE_HEIGHT)
    lines.set(key, slot)
    return slot
  }
  const join = (from: Slot, to: Slot, weight: number) => {
    if (from.right.some(({ slot }) => slot === to)) return
    from.right.push({ slot: to, weight })
    to.left.push({ slot: from, weight })
  }
  const passes = (edge: LayoutEdge): ReadonlyArray<Slot> => {
    const [from, to] = [boxes.get(edge.from)?.layer ?? 0, boxes.get(edge.to)?.layer ?? 0]
    return Array.from({ length: Math.max(0, to - from - 1) }, (_, index) =>
      lineAt(edge.from, from + index + 1),
    )
  }
  for (const edge of edges) {
    const path = [boxes.get(edge.from), ...passes(edge), boxes.get(edge.to)].filter(
      (slot) => slot !== undefined,
    )
    for (const [index, slot] of path.entries()) {
      const next = path[index + 1]
      if (next === undefined) continue
      const line = slot.height === LINE_HEIGHT && next.height === LINE_HEIGHT
      join(slot, next, line ? edge.weight * STRAIGHT : edge.weight)
    }
  }

  const apply = (order: ReadonlyArray<ReadonlyArray<Slot>>) => {
    for (const [layer, slots] of order.entries()) {
      layers[layer] = [...slots]
      for (const [position, slot] of slots.entries()) slot.position = position
    }
  }
  let best = layers.map((layer) => [...layer])
  let fewest = crossings(layers)
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const side = sweep % 2 === 0 ? "left" : "right"
    for (const layer of side === "left" ? layers : layers.toReversed()) reorder(layer, side)
    transpose(layers)
    const count = crossings(layers)
    if (count < fewest) {
      fewest = count
      best = layers.map((layer) => [...layer])
    }
  }
  apply(best)

  for (const layer of layers) place(layer, (slot) => ({ y: slot.position * (slot.height + GAP), weight: 1 }))
  for (let sweep = 0; sweep < SETTLE; sweep += 1) {
    for (const layer of sweep % 2 === 0 ? layers : layers.toReversed())
      place(layer, (slot) => {
        // Both sides, so that a box does not forget the side that it is not swept from.
        const all = [...slot.left, ...slot.right]
        const weight = all.reduce((sum, other) => sum + other.weight, 0)
        return weight === 0
          ? { y: slot.y, weight: 0.1 }
          : { y: all.reduce((sum, other) => sum + other.slot.y * other.weight, 0) / weight, weight }
      })
  }
  const slots = layers.flat()
  const top = Math.min(...slots.map((slot) => slot.y - slot.height / 2))
  for (const slot of slots) slot.y -= top
  return {
    y: new Map([...boxes].map(([name, slot]) => [name, slot.y])),
    between: (edge) => passes(edge).map((slot) => slot.y),
    height: Math.max(0, ...slots.map((slot) => slot.y + slot.height / 2)),
  }
}
