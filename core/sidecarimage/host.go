package sidecarimage

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bottle-run/bottle/sidecar/delivery"
)

// Variable names the program in place of the one that lies beside bottle.
const Variable = "BOTTLE_SIDECAR"

// programName is the program's file name.
const programName = "bottle-sidecar"

// hostRoots are where systems keep the bundle of the roots that they trust.
var hostRoots = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine, NixOS
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older ones of them
	"/var/lib/ca-certificates/ca-bundle.pem",            // SUSE
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem", // macOS, BSD
}

// maxRoots bounds the file of roots, in bytes: distributions have a quarter of a megabyte.
const maxRoots = 8 << 20

// FromHost assembles the image of what this host has: the program that BOTTLE_SIDECAR
// names, or that lies beside the running one, and the host's bundle of roots. The note is
// something that the user should know, or empty.
func FromHost(arch string) (image *Image, note string, err error) {
	program, err := readProgram(arch)
	if err != nil {
		return nil, "", err
	}
	roots, note := readRoots(hostRoots)
	image, err = New(program, roots, arch)
	return image, note, err
}

func readProgram(arch string) ([]byte, error) {
	if path := os.Getenv(Variable); path != "" {
		program, err := checked(path, arch)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s names %s, which does not exist", Variable, path)
		}
		return program, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", programName, err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	dir := filepath.Dir(self)
	// One for the engine's architecture may lie beside the host's own.
	for _, candidate := range []string{programName + "-" + arch, programName} {
		program, err := checked(filepath.Join(dir, candidate), arch)
		if !errors.Is(err, fs.ErrNotExist) {
			return program, err
		}
	}
	return nil, fmt.Errorf("there is no %s beside %s: install it there (make install does), or name it in %s", programName, self, Variable)
}

// checked reads the program and refuses what would not run, or not understand us.
func checked(path, arch string) ([]byte, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", programName, err)
	}
	if err := check(program, arch); err != nil {
		return nil, fmt.Errorf("%s cannot be used: %w", path, err)
	}
	return program, nil
}

var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}

func check(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return errors.New("it is no Linux program: build it with GOOS=linux CGO_ENABLED=0 go build ./cmd/" + programName)
	}
	defer func() { _ = f.Close() }()
	build := fmt.Sprintf("GOOS=linux GOARCH=%s CGO_ENABLED=0 go build ./cmd/%s", arch, programName)
	if got := machines[f.Machine]; got != arch {
		if got == "" {
			got = f.Machine.String()
		}
		return fmt.Errorf("it is for %s, and the engine runs on %s: build one with %s, and name it in %s", got, arch, build, Variable)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("it is not static, and its image holds no libraries: build it with %s", build)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil || !strings.HasSuffix(info.Path, "/cmd/"+programName) {
		return fmt.Errorf("it is not %s: build it with %s", programName, build)
	}
	if !bytes.Contains(program, []byte(delivery.Marker)) {
		return fmt.Errorf("it is not of this version of bottle: install both together, or build it with %s", build)
	}
	return nil
}

// readRoots reads the first of the files that there is.
func readRoots(files []string) (roots []byte, note string) {
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if info.Size() > maxRoots {
			note = fmt.Sprintf("the CA roots in %s are not used: the file is larger than %d bytes", path, maxRoots)
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			note = fmt.Sprintf("the CA roots cannot be read: %v", err)
			continue
		}
		if bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
			return data, ""
		}
	}
	if note == "" {
		note = "this host has no CA roots (Debian: the package ca-certificates): no host is trusted but those that firewall.ca_files vouches for"
	}
	return nil, note
}
