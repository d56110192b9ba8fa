. "$(dirname "$0")/lib.sh"
t=$(topic)
printf 'k1:\n:v2\n' | kc -P -t "$t" -K: -Z
same "$(printf '2,-1\n-1,2')" "$(kc -C -t "$t" -o beginning -e -q -f '%K,%S\n')"
