#!/usr/bin/env bash
# Stands for ssh in ssh.sh, to try it with several processes on this machine: here.sh HOST COMMAND
exec bash -c "$2"
