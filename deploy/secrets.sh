#!/bin/bash
# secrets.sh [FOLDER]: makes the passwords and keys that compose.yaml reads as files. Files that exist are kept, so it
# may be repeated; write your own into them to use servers of your own.
set -euo pipefail
umask 077
folder=${1:-$(dirname "$0")/../secrets}
mkdir -p "$folder"
# The folder keeps others out. Its files are mounted into containers whose users have other numbers than ours.
chmod 0700 "$folder"

# keep NAME CONTENT: write a file unless it is there.
keep() {
    [ -e "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"
    chmod 0444 "$folder/$1"
}

random() { od -An -N32 -v -tx1 /dev/urandom | tr -d ' \n'; }

keep postgres_password "$(random)"
keep trainyard_database_url "postgresql://trainyard:$(<"$folder/postgres_password")@postgres:5432/trainyard"
keep redis_conf "requirepass $(random)"
keep trainyard_broker_url "redis://:$(cut -d' ' -f2 "$folder/redis_conf")@redis:6379/0"
keep trainyard_s3_access_key "trainyard"
keep trainyard_s3_secret_key "$(random)"
keep grafana_admin_password "$(random)"
# An administrator's token, which clients show; `trainyard admin token create` on the server makes others.
keep bootstrap_token "ty_default_bootstrap_$(random)"
