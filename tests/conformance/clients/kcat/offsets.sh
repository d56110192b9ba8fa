. "$(dirname "$0")/lib.sh"
t=$(topic)
seq 0 99 | kc -P -t "$t"
same "$(seq 95 99)" "$(kc -C -t "$t" -o -5 -e -q)"
same "$(seq 90 94)" "$(kc -C -t "$t" -o 90 -c 5 -e -q)"
same "" "$(kc -C -t "$t" -o end -e -q)"
same "$(seq 10 19)" "$(kc -C -t "$t" -p 0 -o 10 -c 10 -q)"
