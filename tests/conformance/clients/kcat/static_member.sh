. "$(dirname "$0")/lib.sh"
t=$(topic); g=$t-group
seq 10 | kc -P -t "$t"
same "$(seq 10)" "$(kc -G "$g" "$t" -X group.instance.id=one -X auto.offset.reset=earliest -e -q)"
seq 11 12 | kc -P -t "$t"
same "$(seq 11 12)" "$(kc -G "$g" "$t" -X group.instance.id=one -X auto.offset.reset=earliest -e -q)"
