. "$(dirname "$0")/lib.sh"
t=$(topic)
printf 'k1:v1\nk2:v2\n' | kc -P -t "$t" -K: -H a=1 -H b=2
same "$(printf 'k1=v1 a=1,b=2 0\nk2=v2 a=1,b=2 1')" "$(kc -C -t "$t" -o beginning -e -q -f '%k=%s %h %o\n')"
