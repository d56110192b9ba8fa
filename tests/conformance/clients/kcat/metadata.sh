. "$(dirname "$0")/lib.sh"
t=$(topic)
echo one | kc -P -t "$t"
kc -L -t "$t" | grep -q "topic \"$t\" with 1 partitions"
kc -L -J | grep -q "\"topic\":\"$t\""
