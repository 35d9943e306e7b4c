#!/bin/bash
# Makes the cluster and its database on the first start, then becomes the server. Of the vendor's settings it knows
# POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_INITDB_ARGS and PGDATA.
set -euo pipefail

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

initialise() {
    local password=${POSTGRES_PASSWORD:-}
    [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(<"$POSTGRES_PASSWORD_FILE")
    if [ -z "$password" ]; then
        echo 'set POSTGRES_PASSWORD_FILE: a database without a password is not started' >&2
        exit 1
    fi
    # Made aside and moved in, PG_VERSION last: a start that was cut short is never taken for a cluster.
    local new=$PGDATA/.new
    rm -rf "$new"
    if [ -n "$(ls -A "$PGDATA")" ]; then
        echo "$PGDATA holds files but no cluster: give it an empty folder" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 - several arguments on purpose
    initdb --pgdata="$new" --username="$user" --pwfile=<(printf '%s\n' "$password") \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    if [ "$database" != postgres ]; then
        printf 'CREATE DATABASE "%s";\n' "$database" | postgres --single -D "$new" postgres >/dev/null
    fi
    find "$new" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    sync
    mv "$new/PG_VERSION" "$PGDATA"
    rmdir "$new"
}

case ${1:-postgres} in
postgres | -*)
    [ "${1:-}" != postgres ] || shift
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA" 2>/dev/null || true
    [ -e "$PGDATA/PG_VERSION" ] || initialise
    exec postgres -c listen_addresses='*' "$@"
    ;;
*)
    exec "$@"
    ;;
esac
