package runtime

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func container(change func(*ContainerSpec)) ContainerSpec {
	s := ContainerSpec{Name: "c", Image: "i"}
	change(&s)
	return s
}

func TestContainerSpecsThatNoEngineMaySee(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*ContainerSpec)
		want   string
	}{
		"an empty name":                 {func(s *ContainerSpec) { s.Name = "" }, "name"},
		"an upper-case name":            {func(s *ContainerSpec) { s.Name = "Agent" }, "Agent"},
		"a name that looks like a flag": {func(s *ContainerSpec) { s.Name = "-x" }, "-x"},
		"no image":                      {func(s *ContainerSpec) { s.Image = "" }, "image"},
		"a NUL in the command":          {func(s *ContainerSpec) { s.Command = []string{"a\x00"} }, "command"},
		"a variable with no name":       {func(s *ContainerSpec) { s.Env = map[string]string{"": "v"} }, "variable"},
		"a variable named with =":       {func(s *ContainerSpec) { s.Env = map[string]string{"A=B": "v"} }, "A=B"},
		"all capabilities":              {func(s *ContainerSpec) { s.Capabilities = []string{"ALL"} }, "ALL"},
		"a capability with its prefix":  {func(s *ContainerSpec) { s.Capabilities = []string{"CAP_NET_ADMIN"} }, "CAP_NET_ADMIN"},
		"an OCI runtime that is a path": {func(s *ContainerSpec) { s.OCIRuntime = "/tmp/evil" }, "/tmp/evil"},
		"a relative working directory":  {func(s *ContainerSpec) { s.WorkDir = "src" }, "src"},
		"a network given twice":         {func(s *ContainerSpec) { s.Networks = []NetworkAttachment{{Network: "n"}, {Network: "n"}} }, `"n"`},
		"an alias that is no host name": {func(s *ContainerSpec) { s.Networks = []NetworkAttachment{{Network: "n", Aliases: []string{"a b"}}} }, "a b"},
		"an IPv6 address": {func(s *ContainerSpec) {
			s.Networks = []NetworkAttachment{{Network: "n", Address: netip.IPv6Loopback()}}
		}, "::1"},
		"a file that climbs":   {func(s *ContainerSpec) { s.Files = []File{{Path: "/a/../b"}} }, "/a/../b"},
		"a file given twice":   {func(s *ContainerSpec) { s.Files = []File{{Path: "/a"}, {Path: "/a"}} }, "/a"},
		"a file below a file":  {func(s *ContainerSpec) { s.Files = []File{{Path: "/a"}, {Path: "/a/b"}} }, "/a/b"},
		"a file below a tmpfs": {func(s *ContainerSpec) { s.Files = []File{{Path: "/t/f"}}; s.Tmpfs = []Tmpfs{{Target: "/t"}} }, "/t"},
		"a file at a mount": {func(s *ContainerSpec) {
			s.Files = []File{{Path: "/t"}}
			s.Mounts = []Mount{{Source: "/s", Target: "/t"}}
		}, "/t"},
		"a tmpfs and a mount at one place": {func(s *ContainerSpec) {
			s.Tmpfs = []Tmpfs{{Target: "/t"}}
			s.Mounts = []Mount{{Source: "/s", Target: "/t"}}
		}, "/t"},
		"a tmpfs over the root":                {func(s *ContainerSpec) { s.Tmpfs = []Tmpfs{{Target: "/"}} }, `"/"`},
		"a mount of a relative path":           {func(s *ContainerSpec) { s.Mounts = []Mount{{Source: "s", Target: "/t"}} }, `"s"`},
		"a memory limit in which nothing runs": {func(s *ContainerSpec) { s.Limits.Memory = 1024 }, "1024"},
		"a negative limit of processes":        {func(s *ContainerSpec) { s.Limits.PIDs = -1 }, "-1"},
		"a label that denies its maker":        {func(s *ContainerSpec) { s.Labels = map[string]string{LabelManaged: "no"} }, LabelManaged},
		"a stop signal that is no name":        {func(s *ContainerSpec) { s.StopSignal = "9" }, `"9"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := container(tc.change).Validate()
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want InvalidArgument that mentions %q", err, tc.want)
			}
		})
	}
}

func TestAnErrorNeverHoldsAVariablesValue(t *testing.T) {
	err := container(func(s *ContainerSpec) { s.Env = map[string]string{"TOKEN": "hunter2\x00"} }).Validate()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("got %v", err)
	}
}

func TestTheSmallestContainerIsValid(t *testing.T) {
	if err := container(func(*ContainerSpec) {}).Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestSubnets(t *testing.T) {
	for s, ok := range map[string]bool{
		"10.1.2.0/24": true, "10.1.0.0/16": true, "10.1.2.8/29": true,
		"10.1.2.1/24": false, "10.0.0.0/8": false, "10.1.2.0/30": false, "2001:db8::/64": false,
	} {
		err := NetworkSpec{Name: "n", Subnet: netip.MustParsePrefix(s)}.Validate()
		if (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestDefaultsAreFilledInWithoutTouchingTheCallersSpec(t *testing.T) {
	s := ContainerSpec{Name: "my_agent.", Files: []File{{Path: "/f"}}, Tmpfs: []Tmpfs{{Target: "/t"}}}
	d := s.withDefaults()
	if d.Hostname != "my-agent" || d.Files[0].Mode != 0o644 || d.Tmpfs[0].Size != DefaultTmpfsSize || d.Tmpfs[0].Mode != 0o1777 {
		t.Errorf("defaults: %+v", d)
	}
	if s.Files[0].Mode != 0 || s.Tmpfs[0].Size != 0 {
		t.Error("the caller's spec was changed")
	}
}
