#!/usr/bin/env bash
# What every script here needs and none should write twice: messages, the cache folder, a working cargo, and system
# packages. Sourced, never run; it changes nothing by being sourced.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

# Ends the script. First line: what is wrong. Further arguments: what to do about it, a line each.
die() {
  say "error: $1"
  shift
  for line in "$@"; do say "       $line"; done
  exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Where tools and compiled output live between runs. Postgres does not run as root, and no other user can enter root's
# home, hence the other folder for root.
cache_folder() {
  if [ -n "${CONTEXT_API_CACHE:-}" ]; then
    printf '%s\n' "$CONTEXT_API_CACHE"
  elif is_root; then
    printf '%s\n' /var/cache/context-api
  elif [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/context-api"
  else
    die "no folder to keep tools in: neither HOME nor CONTEXT_API_CACHE is set" \
      "Set CONTEXT_API_CACHE to a folder that may be written."
  fi
}

# Makes `cargo` work, also where HOME points away from the home that rustup was installed in.
require_cargo() {
  local home
  home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true)
  if [ -n "$home" ] && [ -d "$home/.rustup" ] && [ ! -d "${HOME:-/nonexistent}/.rustup" ]; then
    export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}" CARGO_HOME="${CARGO_HOME:-$home/.cargo}"
  fi
  PATH="$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
  export PATH
  command -v cargo >/dev/null || die "cargo is not installed" \
    "Install Rust with rustup (https://rustup.rs); the version is in rust-toolchain.toml."
  cargo --version >/dev/null 2>&1 || die "cargo does not start in $PWD: $(cargo --version 2>&1 | head -n 1)" \
    "Install the toolchain that rust-toolchain.toml names: rustup toolchain install"
}

require_c_compiler() {
  command -v cc >/dev/null || apt_install gcc libc6-dev
}

# Installs Debian packages, as root or with sudo that asks for nothing. The package lists of a fresh machine are often
# too old to install from, so they are renewed, but only once an install has failed.
apt_install() {
  local as_root=()
  is_root || as_root=(sudo -n)
  if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    die "these system packages are missing and cannot be installed from here: $*" \
      "Install them with the system's package manager and run this again."
  fi
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends "$@")
  say "installing system packages: $*"
  "${install[@]}" </dev/null >/dev/null 2>&1 && return
  "${as_root[@]}" apt-get update -q </dev/null >&2 || say "warning: some package lists could not be renewed"
  "${install[@]}" </dev/null >&2 || die "apt-get could not install: $*" "Its own words are above."
}

# The address of the database called $1 on the server of TEST_DATABASE_URL.
database_url() {
  local address=${TEST_DATABASE_URL%%\?*} options=${TEST_DATABASE_URL#"${TEST_DATABASE_URL%%\?*}"}
  printf '%s/%s%s\n' "${address%/*}" "$1" "$options"
}

on_server() { "$TEST_PG_BIN/psql" "$TEST_DATABASE_URL" -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
