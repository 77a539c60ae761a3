#!/bin/bash
# Makes Tidegauge's topics; run again, it changes nothing. BOOTSTRAP is the broker's address.
set -euo pipefail

make_topic() { # name, partitions, further settings
    /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BOOTSTRAP" --create --if-not-exists \
        --topic "$1" --partitions "$2" --replication-factor 1 "${@:3}"
}

make_topic ai.requests 6
make_topic ai.gpus 3
make_topic ai.incidents 1
make_topic ai.dead-letters 1 --config retention.ms=604800000
