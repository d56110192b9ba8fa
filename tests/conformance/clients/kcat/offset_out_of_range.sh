. "$(dirname "$0")/lib.sh"
t=$(topic)
echo one | kc -P -t "$t"
same "one" "$(kc -C -t "$t" -p 0 -o 1000 -X auto.offset.reset=earliest -c 1 -q)"
