. "$(dirname "$0")/lib.sh"
t=$(topic); g=$t-group
seq 10 | kc -P -t "$t"
for member in 1 2; do
    timeout 20 kcat -b "$BOOTSTRAP" -G "$g" "$t" -u -q -X auto.offset.reset=earliest -X session.timeout.ms=6000 > "member-$member.$$" &
    sleep 1
done
seq 11 20 | kc -P -t "$t"
for _ in $(seq 100); do
    [ "$(cat member-?.$$ | sort -nu | wc -l)" = 20 ] && break
    sleep 0.1
done
kill %1 %2; wait || true
same "$(seq 20)" "$(cat member-?.$$ | sort -nu)"
