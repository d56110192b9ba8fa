. "$(dirname "$0")/lib.sh"
round_trip sasl SCRAM-SHA-256 "$SASL_PASSWORD"
