. "$(dirname "$0")/lib.sh"
t=$(topic)
head -c 900000 /dev/zero | tr '\0' x > large.$$
kc -P -t "$t" large.$$ large.$$ large.$$
same "$(printf '900000\n900000\n900000')" "$(kc -C -t "$t" -o beginning -e -q -f '%S\n' -X fetch.message.max.bytes=100000)"
