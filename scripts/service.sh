#!/usr/bin/env bash
# What scripts have in common that put a running service to the test: its program, a database of its own, starting it on a
# free port, and stopping it by its id. Sourced, never run, after prelude.sh; create_database needs the servers of
# scripts/services.
#
# Sets `folder`, a temporary one that goes in the end, and while the service runs `server_url` and `SERVICE_API_KEY`.
set -euo pipefail

READY_SECONDS_MAX=60
STOP_SECONDS_MAX=20

folder="" server_pid="" server_url="" database=""

# --- the program --------------------------------------------------------------------------------------------------

# Prints the program's path: of CONTEXT_API_BIN, or of what cargo builds here.
build() {
  if [ -n "${CONTEXT_API_BIN:-}" ]; then
    realpath "$CONTEXT_API_BIN"
    return
  fi
  require_cargo
  require_c_compiler
  cargo build --release --locked --quiet --package context-api >&2
  realpath "${CARGO_TARGET_DIR:-target}/release/context-api"
}

# --- the database -------------------------------------------------------------------------------------------------

# create_database NAME: the server may be somebody's own, hence the name and that it is dropped in the end.
create_database() {
  database=context_$1_$$
  on_server "create database $database"
  DATABASE_URL=$(database_url "$database")
  export DATABASE_URL REDIS_URL="$TEST_REDIS_URL"
}

# Instead of a server's: one in the service's own process, in the temporary folder.
use_embedded_database() {
  unset DATABASE_URL DB_HOST REDIS_URL
  export DATA_DIR="$folder/data"
}

drop_database() {
  if [ -n "$database" ]; then
    on_server "drop database if exists $database with (force)" || say "warning: the database $database is left behind"
  fi
}

# --- the service --------------------------------------------------------------------------------------------------

ended() { ! kill -0 "$1" 2>/dev/null; }

# Port 0 is a free one; the log says which.
start_service() {
  local program=$1
  SERVICE_API_KEY=ctx_test_$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  export SERVICE_API_KEY
  "$program" migrate >"$folder/migrate.log" 2>&1 || die "the migration failed" "$(tail -n 20 "$folder/migrate.log")"
  env BIND_ADDR=127.0.0.1:0 METRICS_ADDR=off BOOTSTRAP_API_KEY="$SERVICE_API_KEY" \
    EMBEDDING_PROVIDER=builtin EMBEDDING_THREADS=1 WORKER_INLINE=true SHUTDOWN_GRACE_SECONDS=5 \
    LOG_FORMAT=json LOG_LEVEL=info \
    "$program" serve >"$folder/server.log" 2>&1 </dev/null &
  server_pid=$!
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  until service_is_ready "$program"; do
    if ended "$server_pid" || [ "$SECONDS" -ge "$deadline" ]; then
      say "$(tail -n 20 "$folder/server.log")"
      die "the service did not get ready in $READY_SECONDS_MAX s" "Its last words are above."
    fi
    sleep 0.1
  done
}

service_is_ready() {
  local address
  address=$(sed -n 's/.*"message":"ready","address":"\([^"]*\)".*/\1/p' "$folder/server.log" 2>/dev/null)
  [ -n "$address" ] || return 1
  # shellcheck disable=SC2034  # For the script that this is sourced into.
  server_url=http://$address
  BIND_ADDR=$address "$1" healthcheck >/dev/null 2>&1
}

# stop PID: TERM, and KILL for who does not listen; its exit status.
stop() {
  local pid=$1 status=0 deadline=$((SECONDS + STOP_SECONDS_MAX))
  kill -TERM "$pid" 2>/dev/null || true
  until ended "$pid" || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || status=$?
  return "$status"
}

stop_service() {
  local pid=$server_pid status=0
  server_pid=""
  stop "$pid" || status=$?
  [ "$status" -eq 0 ] || die "the service ended with status $status" "$(tail -n 20 "$folder/server.log")"
}

# A panic is caught and answered as a 500, a refused connection is nobody's answer: the log tells of both.
check_log() {
  local findings
  findings=$(grep -E 'panicked|a request failed' "$folder/server.log" || true)
  [ -z "$findings" ] || die "the service's log tells of failures" "$(head -n 20 <<<"$findings")"
}

# --- the way out --------------------------------------------------------------------------------------------------

# make_folder NAME: sets `folder`, and sees to it that it goes, with the service and its database, however the script ends.
make_folder() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  folder=$(mktemp -d "${TMPDIR:-/tmp}/context-api-$1.XXXXXX")
}

clean_up() {
  local status=$?
  trap '' INT TERM HUP
  # What the script itself runs in the background.
  for pid in $(jobs -p); do
    if [ "$pid" != "$server_pid" ]; then stop "$pid" || true; fi
  done
  if [ -n "$server_pid" ]; then stop "$server_pid" || true; fi
  drop_database
  if [ -n "$folder" ]; then rm -rf "$folder"; fi
  exit "$status"
}
