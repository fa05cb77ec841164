# shellcheck shell=bash
# shellcheck disable=SC2154 # root and engines are set by who sources it
# Sourced by the scripts that run the conformance suite, which set root and engines.

# start_world starts the outside world in the engines' namespaces and waits until it
# listens. It sets world_pid, and BOTTLE_CONFORMANCE_WORLD for the suite.
start_world() {
	local socket=${BOTTLE_ENGINES_RUN:-/run/bottle-engines}/world.sock i
	rm -f "$socket" # of a run that was killed
	"$engines" as root -- "$root/bin/bottle" conformance world --listen "$socket" &
	world_pid=$!
	for ((i = 0; i < 100; i++)); do
		[[ ! -S $socket ]] || break
		kill -0 "$world_pid" || { echo "the outside world did not start" >&2; return 1; }
		sleep 0.1
	done
	export BOTTLE_CONFORMANCE_WORLD=$socket
}

# stop_world ends it, if it runs.
stop_world() {
	[[ -n ${world_pid-} ]] || return 0
	kill "$world_pid" 2>/dev/null || true
	wait "$world_pid" 2>/dev/null || true
}
