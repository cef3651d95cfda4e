#!/bin/sh
# What udhcpc6 calls: as lease, for DHCPv6. Prefixes and routes are the
# routers' to tell; here are an address of its own and resolvers.
set -u
record=$STATE/$interface.v6.address

case $1 in
bound | renew | informed)
	if [ -n "${ipv6:-}" ]; then
		old=
		[ -s "$record" ] && read -r old <"$record"
		ip -6 addr replace "$ipv6/128" dev "$interface" ${lease:+valid_lft "$lease" preferred_lft "$lease"}
		[ -n "$old" ] && [ "$old" != "$ipv6/128" ] && ip -6 addr del "$old" dev "$interface"
		echo "$ipv6/128" >"$record"
	fi
	{
		[ -n "${search:-}" ] && echo "search $search"
		for server in ${dns:-}; do echo "nameserver $server"; done
	} | /kios/resolv put "$interface.v6"
	echo "$interface: DHCPv6 $1 ${ipv6:-without an address} dns ${dns:-none} for ${lease:-?} s"
	;;
leasefail) echo "$interface: no answer to DHCPv6, trying again" ;;
esac
