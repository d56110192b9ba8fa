. "$(dirname "$0")/lib.sh"
t=$(topic)
head -c 2000000 /dev/zero | tr '\0' x > too_large.$$
! kc -P -t "$t" -X message.max.bytes=5000000 too_large.$$ 2> refusal.$$
grep -qi "size too large" refusal.$$
