#!/usr/bin/env bash
# One training on several hosts, over plain ssh. Worker 0, the first host, has the run folder.
#
#   experiments/launch/ssh.sh "HOST1 HOST2 ..." t2i-train --flagfile=... --run_dir=...
#
# Every host needs the package at the same place, and sees the data set, and the runs that flags name, at the same path.
# LAUNCH_SHELL replaces ssh (LAUNCH_SHELL="bash experiments/launch/here.sh" tries it on one machine). Ctrl-C stops all.
set -euo pipefail
read -ra hosts <<< "$1"
shift
port=${PORT:-12345}
launch=${LAUNCH_SHELL:-ssh -tt}

addresses=""
for index in "${!hosts[@]}"; do
  addresses+="\"${hosts[$index]}:$((port + index))\", "
done
# Signals do not travel over ssh: Ctrl-C goes as the key itself, through the terminal that -tt makes on the other side.
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
pids=() keys=()
trap 'kill -INT "${pids[@]}" 2> /dev/null || true; for key in "${keys[@]}"; do printf "\003" >&"$key"; done' INT TERM
for index in "${!hosts[@]}"; do
  config="{\"cluster\": {\"worker\": [${addresses%, }]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
  mkfifo "$pipes/$index"
  exec {key}<> "$pipes/$index"
  $launch "${hosts[$index]}" "cd $(printf %q "$PWD") && TF_CONFIG=$(printf %q "$config") exec $(printf '%q ' "$@")" <&"$key" &
  pids+=($!) keys+=("$key")
done
status=0
for pid in "${pids[@]}"; do
  while code=0; wait "$pid" || code=$?; kill -0 "$pid" 2> /dev/null; do :; done  # a signal ends wait, not the worker
  [ "$code" = 0 ] || status=$code
done
exit "$status"
