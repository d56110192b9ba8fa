. "$(dirname "$0")/lib.sh"
! sasl PLAIN wrong -L -m 3 2> refusal.$$
grep -qi "authentication fail" refusal.$$
