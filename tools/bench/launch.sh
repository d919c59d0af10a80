# Sourced by the benchmarks beside it: sets up, builds (unless BALLAST_BIN names a folder of programs), then runs the Python module $1 with the other arguments.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

launch() {
  local module="$1" python
  shift
  if [[ -z "${BALLAST_BIN:-}" ]]; then
    tools/setup
    bazel build //server:ballast-server //worker:ballast-worker //tools/ballastctl
    export BALLASTCTL="$PWD/bazel-bin/tools/ballastctl/ballastctl"
  else
    export BALLASTCTL="$BALLAST_BIN/ballastctl"
  fi
  export PYTHONPATH="$PWD/client/python:$PWD"
  python="$(tools/setup --print-venv)/bin/python"
  exec "$python" -m "$module" --folder "${BALLAST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ballast}/bench" "$@"
}
