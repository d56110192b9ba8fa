. "$(dirname "$0")/lib.sh"
round_trip sasl SCRAM-SHA-512 "$SASL_PASSWORD"
