. "$(dirname "$0")/lib.sh"
t=$(topic)
echo early | kc -P -t "$t"
sleep 0.05; now=$(date +%s%3N); sleep 0.05
echo late | kc -P -t "$t"
same "late" "$(kc -C -t "$t" -o "s@$now" -e -q)"
same "early" "$(kc -C -t "$t" -o beginning -o "e@$now" -e -q)"
same "$t [0] offset 1" "$(kc -Q -t "$t:0:$now")"
same "$t [0] offset 2" "$(kc -Q -t "$t:0:-1")"
same "$t [0] offset 0" "$(kc -Q -t "$t:0:-2")"
