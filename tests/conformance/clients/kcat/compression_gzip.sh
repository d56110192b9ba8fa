. "$(dirname "$0")/lib.sh"
round_trip kc -z gzip
