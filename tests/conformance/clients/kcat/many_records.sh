. "$(dirname "$0")/lib.sh"
t=$(topic)
seq 200000 | kc -P -t "$t" -z lz4
same "$(seq 200000 | md5sum)" "$(kc -C -t "$t" -o beginning -e -q | md5sum)"
