. "$(dirname "$0")/lib.sh"
round_trip kc -X isolation.level=read_committed
