#!/bin/sh
# Print the variables that docker-compose.yml asks for, with random values: sh deploy/compose/secrets.sh > .env
set -eu
umask 077
for name in REDIS_PASSWORD POSTGRES_PASSWORD STREAMQ_DASHBOARD_TOKEN STREAMQ_DASHBOARD_SECRET; do
    printf '%s=%s\n' "$name" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
done
