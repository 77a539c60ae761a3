#!/bin/sh
# Writes random passwords for docker compose to `.env` beside docker-compose.yml, readable by you alone. An existing file is
# kept. ClickHouse is given hashes only.
set -eu

cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo "secrets: .env exists and is kept; remove it to make new passwords (ClickHouse and Grafana must be restarted then)" >&2
    exit 0
fi

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
digest() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

writer=$(password)
reader=$(password)
admin=$(password)
umask 077
cat > .env <<EOF
CLICKHOUSE_WRITER_PASSWORD=$writer
CLICKHOUSE_WRITER_SHA256=$(digest "$writer")
CLICKHOUSE_READER_PASSWORD=$reader
CLICKHOUSE_READER_SHA256=$(digest "$reader")
GRAFANA_ADMIN_PASSWORD=$admin
EOF
echo "secrets: wrote .env; Grafana's user is admin, its password is GRAFANA_ADMIN_PASSWORD there"
