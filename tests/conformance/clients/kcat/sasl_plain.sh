. "$(dirname "$0")/lib.sh"
round_trip sasl PLAIN "$SASL_PASSWORD"
