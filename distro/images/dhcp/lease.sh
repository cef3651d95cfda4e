#!/bin/sh
# What udhcpc calls with the event as $1 and the lease in variables:
# https://udhcp.busybox.net/README.udhcpc. Addresses get the lease's lifetime,
# so that the kernel takes them away when nobody renews.
set -u
record=$STATE/$interface.v4.address

lifetime() {
	[ "${lease:-$FOREVER}" = "$FOREVER" ] || echo "valid_lft $lease preferred_lft $lease"
}

routes() {
	read -r index <"/sys/class/net/$interface/ifindex"
	metric=$((1000 + index))
	# RFC 3442: who gives classless routes means them instead of routers.
	set -- ${staticroutes:-}
	if [ $# -eq 0 ]; then
		set -- ${router:-}
		# onlink: with a netmask of /32 the router is outside of it.
		[ $# -gt 0 ] && ip route replace default via "$1" dev "$interface" metric "$metric" onlink
		return
	fi
	while [ $# -ge 2 ]; do
		if [ "$2" = 0.0.0.0 ]; then
			ip route replace "$1" dev "$interface" metric "$metric"
		else
			ip route replace "$1" via "$2" dev "$interface" metric "$metric" onlink
		fi
		shift 2
	done
}

case $1 in
deconfig)
	if [ -e "$STATE/$interface.v4.greeting" ]; then
		rm -f "$STATE/$interface.v4.greeting"
		exit 0
	fi
	if [ -s "$record" ]; then
		read -r old <"$record"
		echo "$interface: lost the lease of $old"
		ip addr del "$old" dev "$interface"
		rm -f "$record" "$STATE/$interface.ntp"
		: | /kios/resolv put "$interface.v4"
	fi
	;;
bound | renew)
	now=$ip/${mask:-32}
	old=
	[ -s "$record" ] && read -r old <"$record"
	[ -n "${mtu:-}" ] && ip link set "$interface" mtu "$mtu"
	# shellcheck disable=SC2046
	ip addr replace "$now" broadcast "${broadcast:-+}" dev "$interface" $(lifetime)
	[ -n "$old" ] && [ "$old" != "$now" ] && ip addr del "$old" dev "$interface"
	echo "$now" >"$record"
	routes
	if [ -n "${ntpsrv:-}" ]; then echo "$ntpsrv" >"$STATE/$interface.ntp"; else rm -f "$STATE/$interface.ntp"; fi
	{
		[ -n "${search:-${domain:-}}" ] && echo "search ${search:-$domain}"
		for server in ${dns:-}; do echo "nameserver $server"; done
	} | /kios/resolv put "$interface.v4"
	echo "$interface: $1 $now router ${router:-none} dns ${dns:-none} for ${lease:-?} s from ${serverid:-?}"
	;;
leasefail) echo "$interface: no lease, trying again" ;;
nak) echo "$interface: refused: ${message:-no reason given}" ;;
esac
