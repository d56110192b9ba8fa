. "$(dirname "$0")/lib.sh"
t=$(topic); g=$t-group
seq 10 | kc -P -t "$t"
same "$(seq 10)" "$(kc -G "$g" "$t" -X auto.offset.reset=earliest -X partition.assignment.strategy=cooperative-sticky -e -q)"
