package runtime

import (
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

var (
	namePattern       = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	aliasPattern      = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	hostnamePattern   = aliasPattern
	capabilityPattern = regexp.MustCompile(`^[A-Z][A-Z_]*$`)
	signalPattern     = regexp.MustCompile(`^SIG[A-Z0-9+-]+$`)
	ociRuntimePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
)

// maxFile bounds a File, whose content is held in memory. Larger content goes
// through CopyTo.
const maxFile = 16 << 20

// invalid is an InvalidArgument error.
func invalid(format string, args ...any) error {
	return Errorf(errdefs.ErrInvalidArgument, format, args...)
}

// Validate says why no engine would accept the network, or returns nil.
func (s NetworkSpec) Validate() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if s.Subnet.IsValid() {
		if err := checkSubnet(s.Subnet); err != nil {
			return err
		}
	}
	return checkLabels(s.Labels)
}

// Validate says why no engine would accept the build, or returns nil.
func (s BuildSpec) Validate() error {
	if !filepath.IsAbs(s.ContextDir) {
		return invalid("the build context %q is not an absolute path", s.ContextDir)
	}
	if len(s.Tags) == 0 {
		return invalid("the build has no tag")
	}
	for _, tag := range s.Tags {
		if err := checkReference(tag); err != nil {
			return err
		}
	}
	for name := range s.Args {
		if err := checkEnvName("build argument", name); err != nil {
			return err
		}
	}
	return checkLabels(s.Labels)
}

// Validate says why no engine would accept the container, or returns nil.
func (s ContainerSpec) Validate() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if s.Image == "" {
		return invalid("no image is given")
	}
	for _, check := range []func() error{
		func() error { return checkWords("command", s.Command) },
		func() error { return checkWords("entrypoint", s.Entrypoint) },
		func() error { return checkEnv(s.Env) },
		func() error { return checkLabels(s.Labels) },
		s.checkIdentity,
		s.checkNetworks,
		s.checkPaths,
		s.checkLimits,
		s.checkHandshake,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s ContainerSpec) checkIdentity() error {
	if s.Hostname != "" && !hostnamePattern.MatchString(s.Hostname) {
		return invalid("hostname %q is not a host name of lower-case letters, digits, hyphens and dots", s.Hostname)
	}
	if s.WorkDir != "" && !isCleanAbs(s.WorkDir) {
		return invalid("working directory %q is not a clean absolute path", s.WorkDir)
	}
	for _, c := range s.Capabilities {
		if !capabilityPattern.MatchString(c) || c == "ALL" || strings.HasPrefix(c, "CAP_") {
			return invalid(`capability %q: give single names without "CAP_", such as "NET_ADMIN"`, c)
		}
	}
	if s.OCIRuntime != "" && !ociRuntimePattern.MatchString(s.OCIRuntime) {
		return invalid("OCI runtime %q is not a name", s.OCIRuntime)
	}
	if s.StopSignal != "" {
		return checkSignal(s.StopSignal)
	}
	return nil
}

func (s ContainerSpec) checkNetworks() error {
	seen := map[string]bool{}
	for _, n := range s.Networks {
		if n.Network == "" || seen[n.Network] {
			return invalid("network %q is empty or given twice", n.Network)
		}
		seen[n.Network] = true
		for _, a := range n.Aliases {
			if !aliasPattern.MatchString(a) {
				return invalid("alias %q on network %q is not a host name of lower-case letters, digits, hyphens and dots", a, n.Network)
			}
		}
		if n.Address.IsValid() && !n.Address.Is4() {
			return invalid("address %s on network %q is not IPv4", n.Address, n.Network)
		}
	}
	return nil
}

func (s ContainerSpec) checkPaths() error {
	mounted := map[string]string{}
	claim := func(what, target string) error {
		if !isCleanAbs(target) || target == "/" {
			return invalid("%s %q is not a clean absolute path below /", what, target)
		}
		if other, ok := mounted[target]; ok {
			return invalid("%s and %s are both at %q", other, what, target)
		}
		mounted[target] = what
		return nil
	}
	for _, m := range s.Mounts {
		if !filepath.IsAbs(m.Source) || strings.ContainsRune(m.Source, 0) {
			return invalid("mount source %q is not an absolute path", m.Source)
		}
		if err := claim("mount", m.Target); err != nil {
			return err
		}
	}
	for _, t := range s.Tmpfs {
		if t.Size < 0 || t.Mode > 0o7777 {
			return invalid("tmpfs %q: negative size or mode beyond permission bits", t.Target)
		}
		if err := claim("tmpfs", t.Target); err != nil {
			return err
		}
	}
	files := map[string]bool{}
	for _, f := range s.Files {
		switch {
		case !isCleanAbs(f.Path) || f.Path == "/":
			return invalid("file %q is not a clean absolute path below /", f.Path)
		case files[f.Path]:
			return invalid("file %q is given twice", f.Path)
		case f.Mode > 0o7777:
			return invalid("file %q: mode %#o has more than permission bits", f.Path, f.Mode)
		case f.UID < 0 || f.GID < 0:
			return invalid("file %q: negative owner", f.Path)
		case len(f.Content) > maxFile:
			return invalid("file %q has %d bytes, more than %d: copy it instead", f.Path, len(f.Content), maxFile)
		}
		files[f.Path] = true
		for dir := f.Path; dir != "/"; dir = path.Dir(dir) {
			if what, ok := mounted[dir]; ok {
				return invalid("file %q lies below the %s at %q", f.Path, what, dir)
			}
			if dir != f.Path && files[dir] {
				return invalid("file %q lies below the file %q", f.Path, dir)
			}
		}
	}
	return nil
}

func (s ContainerSpec) checkLimits() error {
	l := s.Limits
	const leastMemory = 6 << 20 // what Docker, the strictest, accepts
	switch {
	case l.Memory != 0 && l.Memory < leastMemory:
		return invalid("a memory limit of %d bytes is below the least that works, %d", l.Memory, leastMemory)
	case l.PIDs < 0:
		return invalid("the limit of %d processes is negative", l.PIDs)
	case l.CPUs < 0 || l.CPUs != 0 && l.CPUs < 0.01:
		return invalid("the limit of %g processors is below 0.01", l.CPUs)
	case l.NoFile < 0:
		return invalid("the limit of %d open files is negative", l.NoFile)
	}
	return nil
}

func (s ContainerSpec) checkHandshake() error {
	h := s.Handshake
	switch {
	case h == nil:
	case h.Input == nil || h.Answer == nil:
		return invalid("the handshake has no input, or nobody to answer to")
	case s.TTY:
		return invalid("a handshake with a process that has a terminal")
	case s.NoInit:
		return invalid("a handshake with a process without an init")
	}
	return nil
}

// Validate says why no engine would accept the command, or returns nil.
func (s ExecSpec) Validate() error {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return invalid("no command is given")
	}
	if err := checkWords("command", s.Command); err != nil {
		return err
	}
	if s.WorkDir != "" && !isCleanAbs(s.WorkDir) {
		return invalid("working directory %q is not a clean absolute path", s.WorkDir)
	}
	return checkEnv(s.Env)
}

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return invalid("the name %q is not 1 to 63 of a-z, 0-9, '_', '.', '-', beginning with a letter or digit", name)
	}
	return nil
}

func checkSubnet(p netip.Prefix) error {
	switch {
	case !p.Addr().Is4():
		return invalid("subnet %s is not an IPv4 network", p)
	case p.Bits() < 16 || p.Bits() > 29:
		return invalid("subnet %s is outside the supported sizes /16 to /29", p)
	case p != p.Masked():
		return invalid("subnet %s has host bits set: the network is %s", p, p.Masked())
	}
	return nil
}

func checkReference(ref string) error {
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return invalid("image reference %q: %v", ref, err)
	}
	return nil
}

func checkSignal(signal string) error {
	if !signalPattern.MatchString(signal) {
		return invalid(`signal %q is not a name such as "SIGHUP"`, signal)
	}
	return nil
}

func checkWords(what string, words []string) error {
	for i, w := range words {
		if strings.ContainsRune(w, 0) {
			return invalid("word %d of the %s holds a NUL", i, what)
		}
	}
	return nil
}

// checkEnv never puts a value into an error: it may be a secret.
func checkEnv(env map[string]string) error {
	for name, value := range env {
		if err := checkEnvName("variable", name); err != nil {
			return err
		}
		if strings.ContainsRune(value, 0) {
			return invalid("the value of variable %q holds a NUL", name)
		}
	}
	return nil
}

func checkEnvName(what, name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return invalid("%s name %q is empty or holds '=' or NUL", what, name)
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	for k, v := range labels {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return invalid("label %q is empty or holds '=' or NUL", k)
		}
		if k == LabelManaged && v != "true" {
			return invalid("label %s is bottle's own", LabelManaged)
		}
	}
	return nil
}

func isCleanAbs(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// objectName describes what a call is about when the caller gave nothing else.
func objectName(kind, name string) error {
	if name == "" {
		return invalid("no %s is named", kind)
	}
	if strings.ContainsAny(name, "\x00\n") {
		return invalid("%s name %q holds a control character", kind, name)
	}
	return nil
}
