#!/bin/sh
# Writes random passwords for docker-compose.yml to .env, and leaves a file that is there alone.
set -eu
umask 077
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo ".env is there already; nothing was changed" >&2
    exit 0
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
cat > .env.new <<END
NATS_SERVICES_PASSWORD=$(random)
NATS_BRIDGE_PASSWORD=$(random)
POSTGRES_PASSWORD=$(random)
END
mv .env.new .env
echo "wrote .env" >&2
