#!/usr/bin/env bash
# Base images from Debian's packages, for machines that reach no image registry. Needs root, debootstrap and docker.
# Prints the variables that docker-compose.yml and verify-compose.sh take. Grafana is no Debian package.
set -euo pipefail

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# import_suite NAME:TAG SUITE PACKAGES [COMMAND RUN IN THE NEW ROOT]
import_suite() {
  local image="$1" suite="$2" packages="$3" prepare="${4:-true}"
  docker image inspect "$image" >/dev/null 2>&1 && return
  debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; return 1; }
  chroot "$work/root" sh -c "$prepare"
  rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
  tar -C "$work/root" --exclude=./dev -c . | docker import - "$image" >/dev/null
  rm -rf "$work/root"
}

import_suite e2h-local/python:bookworm bookworm python3,python3-venv,ca-certificates
# The folders and users of the images that these stand for: redis is 999, prometheus is nobody.
import_suite e2h-local/stores:trixie trixie redis-server,prometheus,ca-certificates \
  'install -d -o 999 -g 999 /data && install -d -o 65534 -g 65534 /prometheus'

echo "export BASE_IMAGE=e2h-local/python:bookworm"
echo "export REDIS_IMAGE=e2h-local/stores:trixie PROMETHEUS_IMAGE=e2h-local/stores:trixie"
