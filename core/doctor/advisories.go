package doctor

// program is one that has had holes.
type program struct {
	// name is the program's as engines tell it.
	name string
	// packages are the names of distributions' packages of it.
	packages   []string
	advisories []advisory
}

// advisory is a known hole in a program.
type advisory struct {
	id       string
	severity Severity
	// what it lets happen; it follows "VERSION: ".
	what string
	// fixed are the first versions with the fix, one a branch, oldest first.
	fixed  []string
	source string
}

// programs are those with known escapes that matter to bottle. Nothing else is decided
// by their names. Facts were checked in 2026-11 against the advisories named as sources.
var programs = []program{
	{"runc", []string{"runc"}, []advisory{
		{
			id: "CVE-2019-5736", severity: Problem,
			what:  "a process in a container can overwrite the host's runc",
			fixed: []string{"1.0.0-rc7"}, source: "https://github.com/advisories/GHSA-gxmr-w5mj-v8hh",
		},
		{
			id: "CVE-2021-30465", severity: Warning,
			what:  "a race of symbolic links in mounts gives a container the host's files",
			fixed: []string{"1.0.0-rc95"}, source: "https://github.com/opencontainers/runc/security/advisories/GHSA-c3xm-pvg7-gh7r",
		},
		{
			id: "CVE-2024-21626", severity: Problem,
			what:  "an image or an exec can get at the host's files through a descriptor that leaks",
			fixed: []string{"1.1.12"}, source: "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv",
		},
		{
			id: "CVE-2025-31133", severity: Problem,
			what:  "masked paths can be turned against the host: writes to /proc, full escape",
			fixed: []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}, source: "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
		},
		{
			id: "CVE-2025-52565", severity: Problem,
			what:  "the mount of /dev/console can be turned against the host: writes to /proc, full escape",
			fixed: []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}, source: "https://github.com/opencontainers/runc/security/advisories/GHSA-qw9x-cqr3-wc7r",
		},
		{
			id: "CVE-2025-52881", severity: Problem,
			what:  "writes to /proc can be redirected, past the labels of security modules: full escape",
			fixed: []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}, source: "https://github.com/opencontainers/runc/security/advisories/GHSA-cgrx-mc8f-2prm",
		},
	}},
	{"docker", []string{"docker.io", "docker-ce", "moby-engine"}, []advisory{
		{
			id: "CVE-2024-23651", severity: Warning,
			what:  "BuildKit: a race of cache mounts in a build gives it the host's files",
			fixed: []string{"25.0.2"}, source: "https://github.com/moby/buildkit/security/advisories/GHSA-m3r6-h7wv-7xxv",
		},
		{
			id: "CVE-2024-23652", severity: Warning,
			what:  "BuildKit: a build can remove the host's files",
			fixed: []string{"25.0.2"}, source: "https://github.com/moby/buildkit/security/advisories/GHSA-4v98-7qmw-rqr8",
		},
		{
			id: "CVE-2024-23653", severity: Warning,
			what:  "BuildKit: a frontend can run containers with more privilege than the build has",
			fixed: []string{"25.0.2"}, source: "https://github.com/moby/buildkit/security/advisories/GHSA-wr6v-9f75-vh2g",
		},
		{
			id: "CVE-2024-29018", severity: Warning,
			what:  "the daemon asks outside name servers for containers of internal networks if the host's is on loopback; bottle's own sealing does not rely on it",
			fixed: []string{"23.0.11", "25.0.5", "26.0.0-rc3"}, source: "https://github.com/moby/moby/security/advisories/GHSA-mq39-4gv4-mvpx",
		},
		{
			id: "CVE-2024-41110", severity: Note,
			what:  "authorization plugins can be passed by; it concerns hosts that use one",
			fixed: []string{"23.0.15", "25.0.6", "26.1.5", "27.1.1"}, source: "https://github.com/moby/moby/security/advisories/GHSA-v23v-6jw2-98fq",
		},
		{
			id: "CVE-2026-34040", severity: Note,
			what:  "authorization plugins can be passed by with large requests; it concerns hosts that use one",
			fixed: []string{"29.3.1"}, source: "https://github.com/moby/moby/security/advisories/GHSA-x744-4wpc-v9h2",
		},
	}},
	{"Docker Desktop", nil, []advisory{
		{
			id: "CVE-2025-9074", severity: Problem,
			what:  "every container reaches the daemon's API, and with it the host (Windows, macOS)",
			fixed: []string{"4.44.3"}, source: "https://docs.docker.com/security/security-announcements/",
		},
	}},
	{"containerd", []string{"containerd"}, []advisory{
		{
			id: "CVE-2020-15257", severity: Note,
			what:  "the shims' sockets can be reached from containers in the host's network, of which bottle makes none",
			fixed: []string{"1.3.9", "1.4.3"}, source: "https://github.com/containerd/containerd/security/advisories/GHSA-36xw-fx78-c5r4",
		},
		{
			id: "CVE-2024-40635", severity: Warning,
			what:  "an image whose user is out of range runs as root in its container",
			fixed: []string{"1.6.38", "1.7.27", "2.0.4"}, source: "https://github.com/containerd/containerd/security/advisories/GHSA-265r-hfxg-fhmg",
		},
		{
			id: "CVE-2024-25621", severity: Note,
			what:  "other users of the host can reach into containerd's directories: chmod 700 /var/lib/containerd",
			fixed: []string{"1.7.29", "2.0.7", "2.1.5", "2.2.0"}, source: "https://github.com/containerd/containerd/security/advisories/GHSA-pwhc-rpq9-4c8w",
		},
	}},
	{"podman", []string{"podman"}, []advisory{
		{
			id: "CVE-2024-1753", severity: Problem,
			what:  "a Dockerfile can mount the host's root directory into its build",
			fixed: []string{"4.9.4", "5.0.0"}, source: "https://github.com/containers/podman/security/advisories/GHSA-874v-pj72-92f3",
		},
		{
			id: "CVE-2024-9407", severity: Warning,
			what:  "a Dockerfile can make its build change what is mounted from the host",
			fixed: []string{"5.2.4"}, source: "https://nvd.nist.gov/vuln/detail/CVE-2024-9407",
		},
		{
			id: "CVE-2024-11218", severity: Warning,
			what:  "a race of two build jobs gives a build the host's files",
			fixed: []string{"5.3.2"}, source: "https://nvd.nist.gov/vuln/detail/CVE-2024-11218",
		},
		{
			id: "CVE-2026-55686", severity: Warning,
			what:  "an image whose WORKDIR goes through a symbolic link makes directories on the host",
			fixed: []string{"5.7.1"}, source: "https://nvd.nist.gov/vuln/detail/CVE-2026-55686",
		},
	}},
}
