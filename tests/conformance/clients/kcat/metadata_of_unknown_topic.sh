. "$(dirname "$0")/lib.sh"
# Asking does not make kcat fail; the topic is reported with an error, or made (auto.create.topics.enable).
kc -L -t "$(topic)" >/dev/null
