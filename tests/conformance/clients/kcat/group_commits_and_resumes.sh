. "$(dirname "$0")/lib.sh"
t=$(topic); g=$t-group
seq 10 | kc -P -t "$t"
same "$(seq 10)" "$(kc -G "$g" "$t" -X auto.offset.reset=earliest -e -q)"
seq 11 15 | kc -P -t "$t"
same "$(seq 11 15)" "$(kc -G "$g" "$t" -X auto.offset.reset=earliest -e -q)"
