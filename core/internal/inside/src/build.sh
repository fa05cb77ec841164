#!/bin/sh
# Builds inside.c for each architecture whose compiler is here, into the directory
# given (the one above if none). The result depends on the compiler's version alone.
set -eu
cd "$(dirname "$0")"
out=${1:-..}

build() {
	arch=$1 cc=$2
	shift 2
	if ! command -v "$cc" >/dev/null; then
		echo "$cc is not here: inside-$arch is left as it is (Debian: gcc, gcc-aarch64-linux-gnu)" >&2
		return 0
	fi
	LC_ALL=C "$cc" -std=gnu11 -Os -Wall -Wextra -Werror "$@" \
		-ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector \
		-fno-asynchronous-unwind-tables -fno-unwind-tables \
		-fno-pie -fno-ident -nostdlib -static -no-pie -s \
		-Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,-z,noexecstack \
		-o "$out/inside-$arch" inside.c
}

build amd64 x86_64-linux-gnu-gcc -fcf-protection=none -Wl,-z,max-page-size=4096
# The kernel may have pages of 64 KiB there.
build arm64 aarch64-linux-gnu-gcc -mno-outline-atomics -Wl,-z,max-page-size=65536
