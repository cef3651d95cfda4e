#!/bin/sh
# "resolv put SOURCE" takes what one source knows, as lines of resolv.conf(5),
# and writes the host's file from all sources. Without a resolver from anybody
# the file stays as it is: the data partition may have one that is meant.
set -u
target=/host-etc/resolv.conf

umask 022
cat >"$STATE/$2.resolv.new"
# Interfaces and sources report at any time; one of them composes at a time.
tries=0
until mkdir "$STATE/lock" 2>/dev/null; do
	tries=$((tries + 1))
	[ "$tries" -gt 50 ] && break
	sleep 0.1
done
trap 'rmdir "$STATE/lock" 2>/dev/null' EXIT
mv "$STATE/$2.resolv.new" "$STATE/$2.resolv"

# Three resolvers and six names are what the C library looks at. udhcpc6 writes
# addresses in full; short, they are seen to be the routers' ones.
text=$(cat "$STATE"/*.v4.resolv "$STATE"/*.ra.resolv "$STATE"/*.v6.resolv 2>/dev/null | awk '
	function short(address,    group, n, i, zeros) {
		if (split(address, group, ":") != 8) return address
		address = ""
		for (i = 1; i <= 8; i++) {
			sub(/^0+/, "", group[i])
			address = address ":" (group[i] == "" ? "0" : group[i])
		}
		for (n = 8; n > 1; n--) {
			zeros = ""
			for (i = 0; i < n; i++) zeros = zeros ":0"
			i = index(address ":", zeros ":")
			if (i > 0) {
				address = substr(address, 1, i - 1) "::" substr(address, i + 2 * n + 1)
				return i == 1 ? address : substr(address, 2)
			}
		}
		return substr(address, 2)
	}
	$1 == "search" { for (i = 2; i <= NF; i++) if (!seen[$i]++ && names++ < 6) search = search " " $i }
	$1 == "nameserver" {
		server = short($2)
		if (!seen[server]++ && servers++ < 3) lines = lines "nameserver " server "\n"
	}
	END { if (servers > 0) printf "%s%s", (search == "" ? "" : "search" search "\n"), lines }')
[ -z "$text" ] && exit 0
[ "$text" = "$(cat "$target")" ] && exit 0
# In place: the pod has this one file of /etc, and pods that mount it keep seeing it.
echo "$text" >"$target" && echo "resolv.conf:" $text
