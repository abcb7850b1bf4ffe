#!/usr/bin/env bash
# The stack of profile cpu under a real docker engine: it becomes healthy, solves, survives the death of its verifier,
# loses no item of a job, drains. Run by hand where an engine is; builds images (minutes the first time).
#
#   deploy/verify-compose.sh
#
# BASE_IMAGE, WHEELS, PIP_NO_INDEX, REDIS_IMAGE, PROMETHEUS_IMAGE, GRAFANA_IMAGE as in .env.example; deploy/local-images.sh
# makes some where no registry is in reach. Services whose image cannot be had are left out, and that is said.
# KEEP=1 leaves the stack running. Exit code 0: every step passed (the last line counts those that were left out).
set -euo pipefail
cd "$(dirname "$0")/.."

export TAG="${TAG:-verify}" ORCHESTRATOR_PORT="${ORCHESTRATOR_PORT:-18100}" GRAFANA_PORT="${GRAFANA_PORT:-13000}"
# What .env says is for the operator's stack, not for this one.
compose=(docker compose --env-file /dev/null --project-name e2h-verify --profile cpu)
url="http://127.0.0.1:$ORCHESTRATOR_PORT"
passed=0 skipped=0
declare -a left_out=()

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
pass() { passed=$((passed + 1)); say "pass: $*"; }
skip() { skipped=$((skipped + 1)); say "SKIPPED: $*"; }
fail() {
  say "FAIL: $*"
  "${compose[@]}" ps --all
  "${compose[@]}" logs --tail 30 --no-color
  exit 1
}

# json FIELD: a field of the JSON object on standard input, by its path with dots.
json() {
  python3 -c '
import functools, json, sys
at = lambda value, key: value[int(key)] if isinstance(value, list) else value[key]
print(functools.reduce(at, sys.argv[1].split("."), json.load(sys.stdin)))' "$1"
}

# until_true SECONDS COMMAND...: whether the command succeeded within so long.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 1
  done
}

post() { curl --silent --show-error --max-time 300 -H 'content-type: application/json' "$@"; }
ready() { curl --silent --fail --max-time 5 "$url/ready"; }

# A problem of the demo pair's own domain (training.lab.problem).
problem="${PROBLEM:-Numbers wrap around after 96. Rules: door J: add 7; door K: subtract 7; door L: subtract 9. Enter at door J with 85 and leave after door L, in alphabetical order. Which number comes out?}"
body() {
  python3 -c '
import json, sys
print(json.dumps({"problem": sys.argv[1], "n": 8, "sampling": {"temperature": 1.0, "seed": 7, "max_tokens": 256}}))
' "$problem"
}

available() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }

leave_out_what_is_missing() {
  local service image
  for service in redis prometheus grafana; do
    image="$("${compose[@]}" config --format json | json "services.$service.image")"
    available "$image" || { left_out+=("$service"); skip "$service: image $image cannot be had"; }
  done
  [[ " ${left_out[*]} " != *" redis "* ]] || fail "the stack needs a redis: set REDIS_IMAGE"
  docker run --rm "e2h-orchestrator:$TAG" e2h worker --help >/dev/null 2>&1 ||
    { left_out+=(worker); skip "worker: this version has no \`e2h worker\`"; }
}

start() {
  local service services=()
  for service in $("${compose[@]}" config --services); do
    [[ " ${left_out[*]} " == *" $service "* ]] || services+=("$service")
  done
  "${compose[@]}" up --detach --wait --wait-timeout 600 "${services[@]}"
}

# The orchestrator is unhealthy while it has no verifier, which `up --wait` would take for a failure.
start_verifier() {
  "${compose[@]}" up --detach --no-deps verifier-cpu
  until_true 180 ready
}

stack_is_hardened() {
  local id
  for id in $("${compose[@]}" ps --quiet); do
    docker inspect --format '{{.Name}} {{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$id" |
      grep -E '^[^ ]+ [1-9][0-9]*:[0-9]+ true \[ALL\] \[no-new-privileges:true\] [1-9][0-9]+ ' >/dev/null || return 1
  done
}

published_ports() { docker ps --filter label=com.docker.compose.project=e2h-verify --format '{{.Names}} {{.Ports}}' | grep -- '->' | sed -E 's/^e2h-verify-([a-z]+)-.*/\1/' | sort | paste -sd' '; }

solve() {
  local answer
  answer="$(post "$url/v1/solve" -d "$(body)")"
  printf '%s' "$answer" | json candidates.0.steps.0.score >/dev/null
}

status_of_solve() { post --output /dev/null --write-out '%{http_code}' "$url/v1/solve" -d "$(body)"; }

verifier_id() { "${compose[@]}" ps --all --quiet verifier-cpu; }

crash_verifier() {
  # The service's own process, below the container's init: an end that nobody asked for.
  "${compose[@]}" exec -T verifier-cpu python - <<'PYTHON'
import os, signal
from pathlib import Path

for process in Path("/proc").glob("[0-9]*"):
    words = (process / "cmdline").read_bytes().split(b"\0")
    if b"services.verifier" in words and process.name not in ("1", str(os.getpid())):
        os.kill(int(process.name), signal.SIGKILL)
PYTHON
}

has_jobs() { [[ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$url/v1/jobs")" == 200 ]]; }

# A job during which the verifier is killed: every item of it must be there at the end, once.
job_loses_nothing() {
  local job status
  job="$(post "$url/v1/jobs" -d '{"dataset": {"name": "lab", "limit": 12}, "n": 8, "chunk": 4}' | json id)"
  sleep 3
  "${compose[@]}" kill verifier-cpu
  sleep 5
  start_verifier || return 1
  until_true 300 job_ended "$job" || return 1
  status="$(curl --silent "$url/v1/jobs/$job")"
  say "job: $status"
  [[ "$(json items_done <<<"$status")" == "$(json items_total <<<"$status")" && "$(json status <<<"$status")" == completed ]] || return 1
  # 12 problems, a line each, with 8 samples that differ in their seeds.
  curl --silent "$url/v1/jobs/$job/results" | python3 -c '
import json, sys
seeds = [[sample["seed"] for sample in json.loads(line)["samples"]] for line in sys.stdin]
sys.exit([len(set(each)) for each in seeds] != [8] * 12 or sum(map(len, seeds)) != 96)'
}

job_ended() { curl --silent "$url/v1/jobs/$1" | json status | grep -E '^(completed|completed_with_errors|failed|cancelled)$'; }

prometheus_sees() {
  "${compose[@]}" exec -T prometheus promtool query instant http://127.0.0.1:9090 "$1" | grep -q '=>'
}

stop_and_check_exits() {
  local id name code ok=0
  "${compose[@]}" stop
  for id in $("${compose[@]}" ps --all --quiet); do
    read -r name code < <(docker inspect --format '{{.Name}} {{.State.ExitCode}}' "$id")
    [[ "$code" == 0 ]] || { say "$name ended with $code"; ok=1; }
  done
  return $ok
}

end() { [[ -n "${KEEP:-}" ]] || "${compose[@]}" down --volumes --timeout 60 >/dev/null 2>&1 || true; }

docker info >/dev/null 2>&1 || { say "SKIPPED: no docker engine answers"; exit 0; }
trap end EXIT
"${compose[@]}" down --volumes >/dev/null 2>&1 || true

say "building"
"${compose[@]}" build --quiet
docker run --rm "e2h-orchestrator:$TAG" python -c '
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) for name in ("torch", "vllm", "transformers")))' || fail "torch is in the orchestrator's image"
pass "images are built; the orchestrator's holds no torch, vllm or transformers"

leave_out_what_is_missing
start || fail "the stack did not become healthy"
pass "the stack is healthy"
stack_is_hardened || fail "a container runs as root, with capabilities, a writable root or no bounds"
pass "every container: not root, read-only, no capabilities, no new privileges, bounded memory"
expected="grafana orchestrator"
[[ " ${left_out[*]} " != *" grafana "* ]] || expected="orchestrator"
[[ "$(published_ports)" == "$expected" ]] || fail "published: $(published_ports)"
pass "published: $expected and nothing else"

solve || fail "no solve through the published port"
pass "a problem is solved through the published port, with a score on each step"

if [[ " ${left_out[*]} " == *" prometheus "* ]]; then
  skip "metrics: no prometheus"
else
  for metric in e2h_solves_total e2h_verifier_tokens_computed_total e2h_generator_samples_total; do
    until_true 60 prometheus_sees "$metric" || fail "prometheus has no $metric"
  done
  pass "prometheus has scraped the three services, with the rules loaded"
fi

before="$(docker inspect --format '{{.RestartCount}}' "$(verifier_id)")"
crash_verifier
restarted() { (("$(docker inspect --format '{{.RestartCount}}' "$(verifier_id)")" > before)); }
until_true 30 restarted || fail "the crashed verifier was not started again"
until_true 180 ready || fail "not ready after the crash of the verifier"
solve || fail "no solve after the crash of the verifier"
pass "a verifier that crashes is started again, and solves go on"

"${compose[@]}" kill verifier-cpu
code="$(status_of_solve)"
[[ "$code" == 503 ]] || fail "a solve without a verifier answered $code"
pass "docker compose kill verifier: a solve is told 503"
start_verifier || fail "not ready after the verifier was started again"
solve || fail "no solve after the verifier was started again"
pass "started again, the stack is ready and solves"

if [[ " ${left_out[*]} " == *" worker "* ]] || ! has_jobs; then
  skip "jobs: this version has no worker or no /v1/jobs"
else
  job_loses_nothing || fail "the job lost items"
  pass "a job whose verifier was killed has every item"
fi

# A solve that runs while the stack is told to stop is answered.
post --output /dev/null --write-out '%{http_code}' "$url/v1/solve" -d "$(body)" >/tmp/e2h-verify-last.$$ &
last=$!
sleep 0.3
stop_and_check_exits || fail "a service did not end with 0"
wait "$last"
code="$(cat "/tmp/e2h-verify-last.$$")"
rm -f "/tmp/e2h-verify-last.$$"
[[ "$code" == 200 ]] || fail "the solve under way at the stop was answered $code"
pass "the stop drains: the solve under way is answered, every service ends with 0"

say "$passed passed, 0 failed, $skipped skipped"
