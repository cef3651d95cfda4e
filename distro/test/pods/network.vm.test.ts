/**
 * A machine whose clock says 2001, with one cable and nothing preset: what the
 * dhcp and ntp pods make of it, and that the rest of the node copes.
 */
import { assert, it } from "@effect/vitest"
import type { EventRecord } from "@kios/core/EventRecord"
import { Effect } from "effect"
import * as crypto from "node:crypto"
import { staticPod } from "../boot/support.ts"
import { addresses, make } from "./Lan.ts"
import { bootNode, minutes, patiently } from "./support.ts"

/** Asks until it is told, as programs do whose network comes later than they. */
const resolver = staticPod(
  "apps",
  "resolver",
  {
    command: [
      "/bin/sh",
      "-c",
      "until nslookup -type=a web.kios.test | grep -F 10.66.0.7; do sleep 1; done; echo resolved; exec sleep 1000000",
    ],
    volumeMounts: [{ name: "resolv-conf", mountPath: "/etc/resolv.conf", readOnly: true }],
  },
  [{ name: "resolv-conf", hostPath: { path: "/etc/resolv.conf", type: "File" } }],
)

const lateManifest = "/host/etc/kubernetes/manifests/late.json"
const late = staticPod("apps", "late", { command: ["/bin/sleep", "1000000"] })

it.live(
  "from nothing preset to addresses, routes, names and the time of day",
  () =>
    Effect.gen(function* () {
      const lan = yield* make({ leaseSeconds: 40, names: { "web.kios.test": "10.66.0.7" } })
      const node = yield* bootNode({
        manifests: { "resolver.json": resolver },
        pods: ["default/hello", "kube-system/dhcp", "kube-system/ntp", "apps/resolver"],
        extraArgs: [...lan.args, "-rtc", "base=2001-02-03T04:05:06"],
      })
      const { logOf, machine, run } = node
      const link = yield* run("cd /sys/class/net; ls -d e*")

      // The lease: address, default route, resolver.
      yield* patiently("an address", run(`ip -4 addr show ${link}`), (text) =>
        assert.match(text, new RegExp(`inet ${addresses.lease}/24 .*dynamic`, "u")),
      )
      assert.match(
        yield* run("ip -4 route"),
        new RegExp(`^default via ${addresses.router} dev ${link}`, "mu"),
      )
      yield* patiently("resolvers of both kinds", run("cat /host/etc/resolv.conf"), (text) =>
        assert.deepStrictEqual(text.split("\n"), [
          "search kios.test",
          `nameserver ${addresses.router}`,
          `nameserver ${addresses.router6}`,
        ]),
      )
      // IPv6: of the router's prefix by the kernel, and from the DHCPv6 server that the router names.
      yield* patiently("IPv6", run(`ip -6 addr show ${link}; ip -6 route`), (text) => {
        assert.include(text, `inet6 ${addresses.autoconf6}/64`)
        assert.include(text, `inet6 ${addresses.lease6}/128`)
        assert.match(text, new RegExp(`^default via fe80::66:1 dev ${link}`, "mu"))
      })

      // A pod finds a name, though it was there before the network.
      yield* patiently("a name", logOf("apps/resolver", "main"), (text) => assert.include(text, "resolved"))
      assert.include(lan.asked.names, "web.kios.test")

      // Renewals: the server saw them, and the address is still there.
      const renewals = { ...lan.asked }
      yield* patiently(
        "renewals",
        Effect.sync(() => lan.asked),
        (now) => {
          assert.isAbove(now.renewals, renewals.renewals)
          assert.isAbove(now.renewals6, renewals.renewals6)
        },
      )
      assert.include(yield* run(`ip -4 addr show ${link}`), addresses.lease)
      assert.strictEqual(lan.asked.discovers, 1, "the first lease was never lost")
      assert.match(yield* logOf("kube-system/dhcp", "dhcp"), /: renew 10\.66\.0\.42\/24/u)

      // The clock was stepped over 25 years, by the server that DHCP named.
      yield* patiently("the time of day", run("date +%s"), (text) =>
        assert.closeTo(Number(text), Date.now() / 1000, 10),
      )
      const ntp = yield* logOf("kube-system/ntp", "ntp")
      assert.include(ntp, `asking: server ${addresses.router}`)
      assert.match(ntp, /set local clock to .*\(offset \d{9}\.\d+s\)/u)
      assert.isAbove(lan.asked.ntp, 0)

      // Nothing was restarted for it: neither the daemons nor a container.
      const { processes } = JSON.parse(yield* run("cat /host/run/kios/events.json")) as EventRecord
      assert.deepStrictEqual(
        processes
          .map(({ deaths, process, starts }) => ({ process, starts, deaths }))
          .toSorted((a, b) => (a.process < b.process ? -1 : 1)),
        ["containerd", "kubelet"].map((process) => ({ process, starts: 1, deaths: 0 })),
      )
      assert.strictEqual(yield* run("ls /host/var/log/pods/*/*/ | grep -c '^[1-9][0-9]*.log' || true"), "0")

      // The kubelet's certificate was made in 2001 and is valid now.
      const pem = yield* run("cat /host/run/kios/kubelet/tls.crt")
      const certificate = new crypto.X509Certificate(pem)
      assert.isBelow(Date.parse(certificate.validFrom), Date.now())
      assert.isAbove(Date.parse(certificate.validTo), Date.now() + 365 * 86_400_000)

      // Another host name, and a pod of after all that: the kubelet keeps the node's name and goes on.
      yield* run("nsenter -t 1 -u hostname renamed")
      yield* run(`cat >${lateManifest} <<'END'\n${late}\nEND`)
      const verdict = yield* machine.until({ pods: ["apps/late"] }, { timeout: "8 minutes" })
      assert.isTrue(verdict.reached, verdict.reason)
    }),
  minutes(30),
)
