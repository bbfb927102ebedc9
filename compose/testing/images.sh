#!/usr/bin/env bash
# The images that compose/test runs: those of Context API, built here, and of each other service the published one where it is
# there or can be pulled, else a stand-in that is built here under the same name. Sourced after engine.sh.
#
# Sets `stand_ins`, the names of those that are not the published ones.
set -euo pipefail

PULL_SECONDS_MAX=300
# Of one image, on a machine that others keep busy.
BUILD_SECONDS_MAX=2400
STAND_INS_KEPT=stand-in.local
STAND_IN_LABEL=dev.context-api.stand-in
TEST_LABEL=dev.context-api.test

stand_ins=()
# Once one could not be pulled, the others need not be tried.
can_pull=true

# --- the published ones -------------------------------------------------------------------------------------------

present() { docker image inspect "$1" >/dev/null 2>&1; }

is_stand_in() { [ "$(docker image inspect --format "{{index .Config.Labels \"$STAND_IN_LABEL\"}}" "$1")" = true ]; }

# provide_image NAME COMMAND…: COMMAND makes a stand-in. It is kept under a second name, which nobody could take for the published
# one, so that the next run finds its layers.
provide_image() {
  local name=$1
  shift
  if ! present "$name" && ! pull "$name"; then
    "$@" || die "no stand-in of $name could be built" "The reason is above."
  fi
  if is_stand_in "$name"; then
    docker tag "$name" "$STAND_INS_KEPT/$name"
    stand_ins+=("$name")
  fi
}

# kept_or COMMAND NAME…: for those that no Dockerfile makes, which could tell what has changed.
kept_or() { docker tag "$STAND_INS_KEPT/$2" "$2" 2>/dev/null || "$@"; }

# The names of published images mean stand-ins only while they are needed.
forget_stand_ins() {
  local name
  for name in "${stand_ins[@]}"; do docker rmi --no-prune "$name" >/dev/null || say "warning: the stand-in $name keeps that name"; done
}

pull() {
  [ "$can_pull" = true ] || return 1
  timeout "$PULL_SECONDS_MAX" docker pull --quiet "$1" >/dev/null 2>&1 && return
  can_pull=false
  return 1
}

# --- the stand-ins ------------------------------------------------------------------------------------------------

# build_quietly ARGUMENT…: what is said while building matters only when it fails.
build_quietly() {
  local log status=0
  log=$(mktemp)
  DOCKER_BUILDKIT=1 timeout "$BUILD_SECONDS_MAX" docker build "$@" >"$log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || say "$(tail -n 40 "$log")"
  rm -f "$log"
  return "$status"
}

# A Debian from the packages of the machine's own mirror. What the machine trusts, the programs inside trust, too: it may
# reach the network through something that has a certificate of its own.
build_base() {
  local name=$1 folder suite=trixie
  say "building a stand-in of $name"
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap
  folder=$(mktemp -d)
  {
    printf 'deb %s %s main\n' "$(debian_mirror)" "$suite"
    printf 'deb %s %s-backports main\n' "$(debian_mirror)" "$suite"
  } >"$folder/sources.list"
  # A machine whose clock is ahead finds all lists expired.
  printf 'Acquire::Check-Valid-Until "false";\n' >"$folder/valid"
  mkdir -p "$folder/certificates"
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$folder/certificates/" \; 2>/dev/null || true
  # shellcheck disable=SC2016  # For the hook to replace.
  mmdebstrap --quiet --variant=minbase --keyring="$(debian_keyring)" --include=ca-certificates \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="copy-in $folder/valid /etc/apt/apt.conf.d" \
    --customize-hook="sync-in $folder/certificates /usr/local/share/ca-certificates" \
    --customize-hook='chroot "$1" update-ca-certificates >/dev/null' \
    "$suite" - "$folder/sources.list" |
    docker import --change "LABEL $STAND_IN_LABEL=true" --change 'CMD ["bash"]' - "$name" >/dev/null
  rm -rf "$folder"
}

# The host's compiler, with what links its output.
build_compiler() {
  local name=$1 base=$2 folder sysroot
  say "building a stand-in of $name"
  require_cargo
  sysroot=$(rustc --print sysroot)
  folder=$(mktemp -d)
  cat >"$folder/Dockerfile" <<DOCKERFILE
FROM $base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY bin /usr/local/bin/
COPY lib /usr/local/lib/
ENV CARGO_HOME=/usr/local/cargo
DOCKERFILE
  tar --create --file - --directory "$folder" Dockerfile \
    --directory "$sysroot" bin/cargo bin/rustc lib |
    build_quietly --tag "$name" --label "$STAND_IN_LABEL=true" -
  rm -rf "$folder"
}

build_stand_in() {
  local name=$1 target=$2
  shift 2
  build_quietly --file compose/testing/stand-ins/Dockerfile --target "$target" --tag "$name" \
    --build-arg "BASE=$BASE_IMAGE" --label "$STAND_IN_LABEL=true" "$@" compose/testing/stand-ins
}

# --- Context API's own --------------------------------------------------------------------------------------------

# Two versions of one program, which is all that a rollout needs, and two that do not start: one at all, one as a server.
build_programs() {
  say "building the images of Context API (profile $IMAGE_PROFILE)"
  build_program api test-1 context-api
  build_program embedder test-1 context-api-embedder
  build_program api test-2 context-api
  build_quietly --tag context-api:test-missing - <<<$'FROM context-api:test-1\nENTRYPOINT ["/nothing"]'
  build_quietly --tag context-api:test-broken - <<<$'FROM context-api:test-1\nENV HTTP_WORKERS=none'
}

# Those that stand on the image of the database.
build_upon_database() {
  build_program backup test-1 context-api-backup
  build_program backup test-2 context-api-backup
  build_program db pg17 context-api-db
  # They never get as far as their backups.
  docker tag context-api-backup:test-1 context-api-backup:test-missing
  docker tag context-api-backup:test-1 context-api-backup:test-broken
  # Those of the last run, whose names these have taken.
  docker image prune --force --filter "label=$TEST_LABEL=true" >/dev/null
}

build_program() {
  local target=$1 version=$2 name=$3
  shift 3
  build_quietly --file compose/images/Dockerfile --target "$target" --tag "$name:$version" --label "$TEST_LABEL=true" \
    --build-arg "RUST_IMAGE=$RUST_IMAGE" --build-arg "DB_IMAGE=$(default_of DB_IMAGE)" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$(revision)" --build-arg "PROFILE=$IMAGE_PROFILE" "$@" . ||
    die "the image $name could not be built" "The reason is above."
}

revision() { git rev-parse HEAD 2>/dev/null || echo unknown; }
