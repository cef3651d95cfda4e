/** Just enough of Ethernet, IP, UDP and ICMPv6 to be a network's only other machine. */

/** An address of IPv6 as 16 bytes; `::` stands for the zeros that are missing. */
export const ipv6 = (text: string): Buffer => {
  const [head = "", tail] = text.split("::")
  const groups = (part: string) => part.split(":").filter((group) => group !== "")
  const last = tail === undefined ? [] : groups(tail)
  const zeros = Array.from({ length: 8 - groups(head).length - last.length }, () => "0")
  return Buffer.concat(
    [...groups(head), ...zeros, ...last].map((group) => Buffer.from(group.padStart(4, "0"), "hex")),
  )
}

/** An address of IPv4 as 4 bytes. */
export const ipv4 = (text: string): Buffer => Buffer.from(text.split(".").map(Number))

export const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

/** RFC 1071. */
const checksum = (bytes: Buffer): number => {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | (bytes[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

export const ethernet = (to: Buffer, from: Buffer, type: number, payload: Buffer): Buffer => {
  const frame = Buffer.concat([to, from, u16(type), payload])
  // A network adapter may drop what is shorter.
  return frame.length < 60 ? Buffer.concat([frame, Buffer.alloc(60 - frame.length)]) : frame
}

/** A datagram in IPv4, without the checksum that UDP may leave out there. */
export const udp4 = (
  from: Buffer,
  to: Buffer,
  ports: readonly [from: number, to: number],
  data: Buffer,
): Buffer => {
  const udp = Buffer.concat([u16(ports[0]), u16(ports[1]), u16(8 + data.length), u16(0), data])
  const header = Buffer.concat([
    Buffer.from([0x45, 0]),
    u16(20 + udp.length),
    Buffer.from([0, 0, 0, 0, 64, 17, 0, 0]),
    from,
    to,
  ])
  header.writeUInt16BE(checksum(header), 10)
  return Buffer.concat([header, udp])
}

/** A packet of IPv6 whose payload has its checksum at `at`. */
const packet6 = (from: Buffer, to: Buffer, next: number, payload: Buffer, at: number): Buffer => {
  const pseudo = Buffer.concat([from, to, u32(payload.length), u32(next)])
  payload.writeUInt16BE(checksum(Buffer.concat([pseudo, payload])), at)
  return Buffer.concat([
    Buffer.from([0x60, 0, 0, 0]),
    u16(payload.length),
    Buffer.from([next, 255]),
    from,
    to,
    payload,
  ])
}

export const icmp6 = (from: Buffer, to: Buffer, message: Buffer): Buffer => packet6(from, to, 58, message, 2)

export const udp6 = (
  from: Buffer,
  to: Buffer,
  ports: readonly [from: number, to: number],
  data: Buffer,
): Buffer =>
  packet6(from, to, 17, Buffer.concat([u16(ports[0]), u16(ports[1]), u16(8 + data.length), u16(0), data]), 6)

/** Type and content of each DHCP option (`size` 1) or DHCPv6 option (`size` 2). */
export const options = (bytes: Buffer, size: 1 | 2): ReadonlyMap<number, Buffer> => {
  const found = new Map<number, Buffer>()
  for (let at = 0; at + 2 * size <= bytes.length;) {
    const type = bytes.readUIntBE(at, size)
    if (size === 1 && type === 255) break
    if (size === 1 && type === 0) {
      at += 1
      continue
    }
    const length = bytes.readUIntBE(at + size, size)
    found.set(type, bytes.subarray(at + 2 * size, at + 2 * size + length))
    at += 2 * size + length
  }
  return found
}

export const option4 = (type: number, content: Buffer): Buffer =>
  Buffer.concat([Buffer.from([type, content.length]), content])

export const option6 = (type: number, content: Buffer): Buffer =>
  Buffer.concat([u16(type), u16(content.length), content])
