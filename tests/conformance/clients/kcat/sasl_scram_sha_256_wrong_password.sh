. "$(dirname "$0")/lib.sh"
! sasl SCRAM-SHA-256 wrong -L -m 3 2> refusal.$$
grep -qi "authentication fail" refusal.$$
