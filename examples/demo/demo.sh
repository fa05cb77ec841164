#!/usr/bin/env bash
#
# The demo: builds a Debian-based image, runs an agent in a sealed bottle, shows
# what it did, and leaves nothing. BOTTLE_BIN is the program (bottle on the PATH if
# unset); BOTTLE_RUNTIME and BOTTLE_HOST choose the engine.
#
# Where no registry can be reached, the base image is made of Debian's packages with
# debootstrap, by root, once: BOTTLE_DEMO_BASE is where it is kept (below /var/cache).
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
bottle=${BOTTLE_BIN:-bottle}
rootfs=${BOTTLE_DEMO_BASE:-/var/cache/bottle-demo/bookworm.tar.gz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

# make_base packs a minimal Debian, if there is none yet.
make_base() {
	[[ ! -s $rootfs ]] || return 0
	if ((EUID != 0)); then
		echo "demo: no registry can be reached, and $rootfs is not there: run $here/demo.sh --base as root" >&2
		exit 1
	fi
	say "no registry: making the base image from Debian's packages"
	command -v debootstrap >/dev/null || { apt-get -q update && apt-get -qy install --no-install-recommends debootstrap; }
	local mirror tree=$work/rootfs
	mirror=$(sed -nE 's/^(deb|URIs:) +(http[^ ]+debian)\/? .*/\2/p; s/^URIs: +(http[^ ]+debian)\/?$/\1/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1 || true)
	debootstrap --variant=minbase --include=ca-certificates bookworm "$tree" ${mirror:+"$mirror"} >"$work/log" 2>&1 ||
		{ tail -n 20 "$work/log" >&2; exit 1; }
	rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}/* "${tree:?}"/dev/*
	mkdir -p "$(dirname "$rootfs")"
	tar --numeric-owner -C "$tree" -czf "$rootfs.part" .
	mv "$rootfs.part" "$rootfs"
	chmod 0644 "$rootfs"
	rm -rf "$tree"
}

# base_image loads it into the engine and prints its reference.
base_image() {
	mkdir -p "$work/base"
	cp "$rootfs" "$work/base/rootfs.tar.gz"
	printf 'FROM scratch\nADD rootfs.tar.gz /\nCMD ["/bin/bash"]\n' >"$work/base/Dockerfile"
	printf 'bottles: {demo-base: {dockerfile: base/Dockerfile}}\nagents: {none: {bottle: demo-base}}\n' >"$work/base.yaml"
	"$bottle" --file "$work/base.yaml" build
}

if [[ ${1-} == --base ]]; then
	make_base
	exit 0
fi

# A copy, so that the demo can set the base and you can look at the original.
cp -r "$here" "$work/demo"
cd "$work/demo"
export DEMO_TOKEN=${DEMO_TOKEN-a-secret-for-the-demo}

say "what would be done"
"$bottle" run --dry-run

say "the image"
if ! "$bottle" build 2>"$work/build.log"; then
	make_base
	base=$(base_image)
	sed -i "s|^    dockerfile: Dockerfile|&\n    build_args: {BASE: \"$base\"}|" bottle.yaml
	"$bottle" build
fi

say "bottle run"
status=0
"$bottle" run || status=$?
if ((status != 3)); then
	echo "demo: the agent ended with status $status, not 3" >&2
	exit 1
fi
echo "the agent's status was passed on: $status"

say "your files are as they were"
cat workspace/notes.txt
cmp workspace/notes.txt "$here/workspace/notes.txt"

say "nothing is left"
"$bottle" rm --images
[[ ! -f $work/base.yaml ]] || "$bottle" --file "$work/base.yaml" rm --images
left=$("$bottle" --json ps)
if [[ -n $left ]]; then
	echo "demo: left: $left" >&2
	exit 1
fi
"$bottle" ps
