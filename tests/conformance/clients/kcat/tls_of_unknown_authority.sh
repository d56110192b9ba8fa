. "$(dirname "$0")/lib.sh"
! timeout 30 kcat -b "$BOOTSTRAP_SSL" -X security.protocol=SSL -X ssl.endpoint.identification.algorithm=none -L -m 3 2> refusal.$$
grep -qi "certificate verify failed" refusal.$$
