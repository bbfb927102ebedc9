#!/usr/bin/env bash
# A container engine for compose/test: the machine's own where one answers, else one that is started here and stopped in the
# end. Compose and buildx come into the cache folder when the machine lacks them. Sourced after scripts/prelude.sh.
#
# Sets DOCKER_HOST and DOCKER_CONFIG as needed, so that `docker` and `docker compose` work.
set -euo pipefail

ENGINE_READY_SECONDS_MAX=60
ENGINE_STOP_SECONDS_MAX=60
BUILD_CACHE_MAX=16GB
# Where Compose 2 and buildx are when the host's release has none: static programs, which run on any.
PLUGINS_SUITE=trixie

engine_pid="" engine_folder=""

# --- the engine ---------------------------------------------------------------------------------------------------

# Fails, with the reason, where no engine answers and none can be started.
provide_engine() {
  # Each with a way out of its own, because `set -e` does not hold for whom `if` asks.
  if ! engine_answers; then
    engine_can_be_started || return 1
    # Its package may have started one.
    engine_answers || start_engine || return 1
  fi
  provide_plugins || return 1
}

engine_answers() { command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1; }

# An engine needs root, and a kernel that lets it make bridges and mounts, which a container without privileges lacks.
engine_can_be_started() {
  if ! is_root; then
    say "no container engine answers, and only root can start one"
    return 1
  fi
  if ! (unshare --mount --net true) 2>/dev/null; then
    say "no container engine answers, and this kernel lets nobody make namespaces"
    return 1
  fi
  command -v dockerd >/dev/null || (apt_install docker.io iptables) || return 1
}

# Its images stay in the cache folder for the next run; its socket and all else are its own.
start_engine() {
  local root deadline=$((SECONDS + ENGINE_READY_SECONDS_MAX))
  root=$(cache_folder)/engine
  engine_folder=$(mktemp -d /tmp/context-api-engine.XXXXXX)
  mkdir -p "$root"
  exec 8>"$root.lock"
  if ! flock --nonblock 8; then
    say "another run has its engine in $root, or one that was killed has left it behind: wait for its end, or stop it"
    return 1
  fi
  export DOCKER_HOST=unix://$engine_folder/docker.sock
  # Layers of sources that nobody has any more would fill the disk.
  printf '{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "%s"}}}\n' "$BUILD_CACHE_MAX" >"$engine_folder/daemon.json"
  # Of a session of its own, so that Ctrl-C does not stop it before the containers are gone. It keeps the lock: should this run be killed,
  # no other one starts a second engine on the same images.
  setsid dockerd --config-file "$engine_folder/daemon.json" --host "$DOCKER_HOST" --data-root "$root" --exec-root "$engine_folder/exec" \
    --pidfile "$engine_folder/docker.pid" >"$engine_folder/log" 2>&1 </dev/null &
  engine_pid=$!
  until docker version >/dev/null 2>&1; do
    if ! kill -0 "$engine_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      say "$(tail -n 15 "$engine_folder/log")"
      say "the container engine does not start here; its last words are above"
      return 1
    fi
    sleep 0.2
  done
}

# One that was interrupted may go on in its container when the engine is gone: whatever has its root in the engine's folder, and is not
# where this script is, too.
end_builds() {
  local process folder
  folder=$(cache_folder)/engine/
  for process in /proc/[0-9]*; do
    [ ! "$process/root" -ef /proc/self/root ] || continue
    if awk -v folder="=$folder" '$4 == "/" && $5 == "/" && index($0, folder) { found = 1 } END { exit !found }' "$process/mountinfo" 2>/dev/null; then
      kill -KILL "${process#/proc/}" 2>/dev/null || true
    fi
  done
}

# Only the one that was started here.
stop_engine() {
  local deadline=$((SECONDS + ENGINE_STOP_SECONDS_MAX))
  [ -n "$engine_pid" ] || return 0
  kill -TERM "$engine_pid" 2>/dev/null || true
  while kill -0 "$engine_pid" 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "warning: the container engine (process $engine_pid) does not stop and is killed"
      kill -KILL "$engine_pid" 2>/dev/null || true
      break
    fi
    sleep 0.2
  done
  wait "$engine_pid" 2>/dev/null || true
  end_builds
  # The engine leaves a network's namespace mounted here. What stays in spite of this is no failure of what was tried.
  find "$engine_folder/exec/netns" -type f -exec umount {} + 2>/dev/null || true
  rm -rf "$engine_folder" || say "warning: $engine_folder could not be removed"
  engine_pid=""
}

# --- Compose and buildx -------------------------------------------------------------------------------------------

provide_plugins() {
  local folder
  if docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then return; fi
  folder=$(cache_folder)/tools/docker-plugins
  [ -e "$folder/.complete" ] || install_plugins "$folder"
  export DOCKER_CONFIG=$folder
}

install_plugins() {
  local folder=$1 apt
  apt=$(mktemp -d)
  say "installing Compose and buildx (once, into $folder)"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$folder/cli-plugins"
  printf 'deb [signed-by=%s] %s %s main\n' "$(debian_keyring)" "$(debian_mirror)" "$PLUGINS_SUITE" >"$apt/sources.list"
  local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache::archives=$apt/archives" -o APT::Sandbox::User=root
    -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none)
  (
    cd "$apt"
    apt-get "${options[@]}" update -qq >&2
    apt-get "${options[@]}" download -qq docker-compose docker-buildx >&2
    for package in docker-compose_*.deb docker-buildx_*.deb; do dpkg-deb -x "$package" unpacked; done
    find unpacked -type f \( -name docker-compose -o -name docker-buildx \) -path '*cli-plugins*' \
      -exec cp {} "$folder/cli-plugins/" \;
  ) || die "Compose and buildx could not be fetched" "The reason is above."
  rm -rf "$apt"
  [ "$(find "$folder/cli-plugins" -type f | wc -l)" -eq 2 ] || die "the packages of Compose and buildx hold other files than expected"
  touch "$folder/.complete"
}

# --- the mirror ---------------------------------------------------------------------------------------------------

# The one that this machine installs from; fails where it is no Debian.
debian_mirror() {
  local mirror
  # shellcheck disable=SC2016  # For apt to replace.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Label: Debian' 2>/dev/null | head -n 1)
  [ -n "$mirror" ] || die "this machine installs from no Debian mirror, so that no stand-ins can be made" \
    "Run this where images can be pulled."
  printf '%s\n' "$mirror"
}

debian_keyring() { printf '%s\n' /usr/share/keyrings/debian-archive-keyring.gpg; }
