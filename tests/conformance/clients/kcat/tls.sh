. "$(dirname "$0")/lib.sh"
round_trip timeout 30 kcat -b "$BOOTSTRAP_SSL" -X security.protocol=SSL -X "ssl.ca.location=$CA_FILE" \
    -X ssl.endpoint.identification.algorithm=none
