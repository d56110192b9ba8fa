. "$(dirname "$0")/lib.sh"
round_trip timeout 30 kcat -b "$BOOTSTRAP_SASL_SSL" -X security.protocol=SASL_SSL -X "ssl.ca.location=$CA_FILE" \
    -X ssl.endpoint.identification.algorithm=none -X sasl.mechanism=SCRAM-SHA-512 \
    -X "sasl.username=$SASL_USER" -X "sasl.password=$SASL_PASSWORD"
