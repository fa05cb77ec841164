#!/bin/sh
# build.sh SOURCE NAME [DIRECTORY]: builds SOURCE as DIRECTORY/NAME-amd64 and NAME-arm64,
# for each architecture whose compiler is here. DIRECTORY is the working one if not given.
# The result depends on the compiler's version alone, which is the one that nolibc.go names.
set -eu
source=$1 name=$2 out=${3:-.}
here=$(dirname "$0")

build() {
	arch=$1 cc=$2
	shift 2
	if ! command -v "$cc" >/dev/null; then
		echo "$cc is not here: $name-$arch is left as it is (Debian: gcc, gcc-aarch64-linux-gnu)" >&2
		return 0
	fi
	# Without the last flag of the second line the compiler makes calls of memset.
	LC_ALL=C "$cc" -std=gnu11 -Os -Wall -Wextra -Werror -I"$here" "$@" \
		-ffreestanding -fno-builtin -fno-stack-protector -fno-tree-loop-distribute-patterns \
		-fno-asynchronous-unwind-tables -fno-unwind-tables \
		-fno-pie -fno-ident -nostdlib -static -no-pie -s \
		-Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,-z,noexecstack \
		-o "$out/$name-$arch" "$source"
}

build amd64 x86_64-linux-gnu-gcc -fcf-protection=none -Wl,-z,max-page-size=4096
# The kernel may have pages of 64 KiB there.
build arm64 aarch64-linux-gnu-gcc -mno-outline-atomics -Wl,-z,max-page-size=65536
