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
pids=()
trap 'kill -INT "${pids[@]}" 2> /dev/null || true' INT TERM
for index in "${!hosts[@]}"; do
  config="{\"cluster\": {\"worker\": [${addresses%, }]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
  $launch "${hosts[$index]}" "cd $(printf %q "$PWD") && TF_CONFIG=$(printf %q "$config") exec $(printf '%q ' "$@")" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
  wait "$pid" || status=$?
done
exit "$status"
