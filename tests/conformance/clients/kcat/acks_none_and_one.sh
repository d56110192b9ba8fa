. "$(dirname "$0")/lib.sh"
round_trip kc -X acks=1
t=$(topic)
seq 20 | kc -P -t "$t" -X acks=0
for _ in $(seq 50); do
    [ "$(kc -C -t "$t" -o beginning -e -q | wc -l)" = 20 ] && exit 0
    sleep 0.1
done
exit 1
