/**
 * A network whose only other machine is this test: it answers ARP and neighbour
 * solicitations, gives leases (DHCP, DHCPv6), advertises itself as a router,
 * resolves names and tells the time. QEMU's frames come over a TCP connection
 * (`-netdev socket`), each after its length.
 */
import { Effect, type Scope } from "effect"
import * as net from "node:net"
import * as P from "./Packets.ts"

/** What the network has been asked for so far. */
export interface Asked {
  discovers: number
  /** Leases that were asked for by a machine that has one: RFC 2131, 4.3.2. */
  renewals: number
  renewals6: number
  routerSolicitations: number
  /** Names, in order. */
  readonly names: Array<string>
  ntp: number
}

export interface Lan {
  /** Words for QEMU: the adapter and its cable. */
  readonly args: ReadonlyArray<string>
  readonly asked: Asked
}

const mac = Buffer.from("525400660001", "hex")
const guestMac = "52:54:00:66:00:02"
const broadcast = Buffer.alloc(6, 0xff)

/** The network's addresses: ours, and those that are given out. */
export const addresses = {
  router: "10.66.0.1",
  lease: "10.66.0.42",
  router6: "fd66::1",
  lease6: "fd66::42",
  /** Made by the guest of the advertised prefix and its MAC address (RFC 4291, appendix A). */
  autoconf6: "fd66::5054:ff:fe66:2",
} as const

const us = P.ipv4(addresses.router)
const guest = P.ipv4(addresses.lease)
const us6 = P.ipv6(addresses.router6)
const guest6 = P.ipv6(addresses.lease6)
const local6 = P.ipv6("fe80::66:1")

/** Multicast of Ethernet for one of IPv6, or the guest itself. */
const linkOf = (to: Buffer, sender: Buffer): Buffer =>
  to[0] === 0xff ? Buffer.concat([Buffer.from([0x33, 0x33]), to.subarray(12)]) : sender

/**
 * The network, while the scope is open.
 *
 * @param options.leaseSeconds of DHCP and DHCPv6: renewals come at half of it
 * @param options.names what DNS knows: name to IPv4 address
 */
export const make = (options: {
  readonly leaseSeconds: number
  readonly names: Readonly<Record<string, string>>
}): Effect.Effect<Lan, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const asked: Asked = {
      discovers: 0,
      renewals: 0,
      renewals6: 0,
      routerSolicitations: 0,
      names: [],
      ntp: 0,
    }
    const server = net.createServer((socket) => {
      let pending = Buffer.alloc(0)
      const send = (frame: Buffer) => socket.write(Buffer.concat([P.u32(frame.length), frame]))
      socket.on("error", () => {})
      socket.on("data", (chunk) => {
        pending = Buffer.concat([pending, chunk])
        while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32BE(0)) {
          const end = 4 + pending.readUInt32BE(0)
          for (const answer of answers(pending.subarray(4, end))) send(answer)
          pending = pending.subarray(end)
        }
      })
    })

    const answers = (frame: Buffer): ReadonlyArray<Buffer> => {
      const sender = frame.subarray(6, 12)
      const payload = frame.subarray(14)
      switch (frame.readUInt16BE(12)) {
        case 0x0806:
          return arp(payload, sender)
        case 0x0800:
          return payload[9] === 17 ? datagram(payload, sender) : []
        case 0x86dd:
          return packet6(payload, sender)
        default:
          return []
      }
    }

    const arp = (request: Buffer, sender: Buffer): ReadonlyArray<Buffer> => {
      if (request.readUInt16BE(6) !== 1 || !request.subarray(24, 28).equals(us)) return []
      const reply = Buffer.concat([
        Buffer.from("0001080006040002", "hex"),
        mac,
        us,
        sender,
        request.subarray(14, 18),
      ])
      return [P.ethernet(sender, mac, 0x0806, reply)]
    }

    const datagram = (packet: Buffer, sender: Buffer): ReadonlyArray<Buffer> => {
      const udp = packet.subarray((packet[0]! & 15) * 4)
      const [source, port] = [udp.readUInt16BE(0), udp.readUInt16BE(2)]
      const data = udp.subarray(8, udp.readUInt16BE(4))
      const answer = (bytes: Buffer | undefined) =>
        bytes === undefined
          ? []
          : [P.ethernet(sender, mac, 0x0800, P.udp4(us, packet.subarray(12, 16), [port, source], bytes))]
      if (port === 67) {
        const reply = dhcp(data)
        return [P.ethernet(broadcast, mac, 0x0800, P.udp4(us, P.ipv4("255.255.255.255"), [67, 68], reply))]
      }
      if (port === 53) return answer(dns(data))
      if (port === 123) return answer(ntp(data))
      return []
    }

    /** RFC 2131, 2132. */
    const dhcp = (request: Buffer): Buffer => {
      const given = P.options(request.subarray(240), 1)
      const discover = given.get(53)?.[0] === 1
      const renewing = !discover && request.readUInt32BE(12) !== 0
      if (discover) asked.discovers++
      if (renewing) asked.renewals++
      const header = Buffer.from(request.subarray(0, 240))
      header[0] = 2
      guest.copy(header, 16)
      return Buffer.concat([
        header,
        P.option4(53, Buffer.from([discover ? 2 : 5])),
        P.option4(54, us),
        P.option4(51, P.u32(options.leaseSeconds)),
        P.option4(1, P.ipv4("255.255.255.0")),
        P.option4(3, us),
        P.option4(6, us),
        P.option4(15, Buffer.from("kios.test")),
        P.option4(42, us),
        Buffer.from([255]),
      ])
    }

    /** RFC 1035: one question, one answer. */
    const dns = (query: Buffer): Buffer => {
      const labels: Array<string> = []
      let at = 12
      for (; query[at] !== 0 && at < query.length; at += query[at]! + 1)
        labels.push(query.subarray(at + 1, at + 1 + query[at]!).toString())
      const name = labels.join(".").toLowerCase()
      const question = query.subarray(12, at + 5)
      const isA = question.readUInt16BE(question.length - 4) === 1
      asked.names.push(name)
      const address = options.names[name]
      const found = address !== undefined && isA
      return Buffer.concat([
        query.subarray(0, 2),
        Buffer.from([0x85, address === undefined ? 0x83 : 0x80]),
        P.u16(1),
        P.u16(found ? 1 : 0),
        P.u32(0),
        question,
        ...(found ? [Buffer.from("c00c00010001", "hex"), P.u32(30), P.u16(4), P.ipv4(address)] : []),
      ])
    }

    /** RFC 5905: our own clock, stratum 1. */
    const ntp = (query: Buffer): Buffer => {
      asked.ntp++
      const now = Date.now() / 1000 + 2_208_988_800
      const time = Buffer.concat([P.u32(Math.floor(now)), P.u32((now % 1) * 2 ** 32)])
      return Buffer.concat([
        Buffer.from([(query[0]! & 0x38) | 4, 1, query[2] ?? 6, 0xec]),
        P.u32(0),
        P.u32(0),
        Buffer.from("TEST"),
        time,
        query.subarray(40, 48),
        time,
        time,
      ])
    }

    const packet6 = (packet: Buffer, sender: Buffer): ReadonlyArray<Buffer> => {
      const from = packet.subarray(8, 24)
      const payload = packet.subarray(40, 40 + packet.readUInt16BE(4))
      const frame = (to: Buffer, bytes: Buffer) => P.ethernet(linkOf(to, sender), mac, 0x86dd, bytes)
      const unspecified = from.every((byte) => byte === 0)
      if (packet[6] === 58 && payload[0] === 133) {
        asked.routerSolicitations++
        const to = P.ipv6("ff02::1")
        return [frame(to, P.icmp6(local6, to, advertisement()))]
      }
      // The guest's own search for duplicates is not for us.
      if (packet[6] === 58 && payload[0] === 135 && !unspecified) {
        const target = payload.subarray(8, 24)
        if (!target.equals(us6) && !target.equals(local6)) return []
        const reply = Buffer.concat([
          Buffer.from("88000000e0000000", "hex"),
          target,
          Buffer.from([2, 1]),
          mac,
        ])
        return [frame(from, P.icmp6(target, from, reply))]
      }
      if (packet[6] === 17 && payload.readUInt16BE(2) === 547) {
        const reply = dhcp6(payload.subarray(8))
        return reply === undefined ? [] : [frame(from, P.udp6(local6, from, [547, 546], reply))]
      }
      return []
    }

    /** RFC 4861, 8106: a prefix to make addresses of, a resolver, and DHCPv6 for more (M). */
    const advertisement = (): Buffer =>
      Buffer.concat([
        Buffer.from([134, 0, 0, 0, 64, 0x80]),
        P.u16(1800),
        Buffer.alloc(8),
        Buffer.from([3, 4, 64, 0xc0]),
        P.u32(3600),
        P.u32(1800),
        P.u32(0),
        P.ipv6("fd66::"),
        Buffer.from([1, 1]),
        mac,
        Buffer.from([25, 3, 0, 0]),
        P.u32(3600),
        us6,
      ])

    /** RFC 8415: an address for everybody who asks. */
    const dhcp6 = (request: Buffer): Buffer | undefined => {
      const type = request[0]!
      const given = P.options(request.subarray(4), 2)
      const [client, association] = [given.get(1), given.get(3)]
      if (client === undefined || association === undefined) return undefined
      if (type === 5) asked.renewals6++
      const times = [P.u32(options.leaseSeconds / 2), P.u32((options.leaseSeconds * 4) / 5)]
      const lifetime = P.u32(options.leaseSeconds)
      const address = P.option6(5, Buffer.concat([guest6, lifetime, lifetime]))
      return Buffer.concat([
        Buffer.from([type === 1 ? 2 : 7]),
        request.subarray(1, 4),
        P.option6(1, client),
        P.option6(2, Buffer.concat([Buffer.from("00030001", "hex"), mac])),
        P.option6(3, Buffer.concat([association.subarray(0, 4), ...times, address])),
        P.option6(23, us6),
      ])
    }

    const port = yield* Effect.acquireRelease(
      Effect.callback<number, Error>((resume) => {
        server.once("error", (cause) => resume(Effect.fail(cause)))
        server.listen(0, "127.0.0.1", () =>
          resume(Effect.succeed((server.address() as net.AddressInfo).port)),
        )
      }),
      () => Effect.sync(() => server.close()),
    )
    return {
      asked,
      args: [
        "-netdev",
        `socket,id=lan,connect=127.0.0.1:${port}`,
        "-device",
        JSON.stringify({ driver: "virtio-net-pci", netdev: "lan", romfile: "", mac: guestMac }),
      ],
    }
  })
