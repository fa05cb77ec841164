package podman

import "testing"

func TestVersionsOfOCIRuntimes(t *testing.T) {
	for _, c := range []struct{ name, pkg, says, want string }{
		{"runc", "runc_1.1.5+ds1-1+deb12u1_amd64", "runc version 1.1.5+ds1\ncommit: x", "1.1.5+ds1-1+deb12u1"},
		{"crun", "crun-1.14-1.fc39.x86_64", "crun version 1.14", "1.14-1.fc39.x86_64"},
		{"crun", "Unknown", "crun version 1.20\ncommit: 9c9a", "1.20"},
		{"runsc", "", "runsc version release-20240101.0\nspec", "release-20240101.0"},
		{"runc", "", "no such thing", ""},
	} {
		if got := ociVersion(c.name, c.pkg, c.says); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
