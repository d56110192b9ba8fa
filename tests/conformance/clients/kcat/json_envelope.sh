. "$(dirname "$0")/lib.sh"
t=$(topic)
echo 'k:v' | kc -P -t "$t" -K:
kc -C -t "$t" -o beginning -e -q -J | grep -q "\"topic\":\"$t\",\"partition\":0,\"offset\":0,.*\"key\":\"k\",\"payload\":\"v\""
