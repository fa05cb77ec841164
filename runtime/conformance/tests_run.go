package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var runTests = []Test{
	{
		Name: "run/inspect-and-list",
		Doc:  "A container that was run is inspected by name and ID and listed, with name, image, labels, state and time of creation.",
		Run:  runLife,
	},
	{
		Name: "run/env-exact",
		Doc:  "The environment arrives as it was given: empty values, `=`, newlines, UTF-8, spaces, quotes; it replaces the image's.",
		Run:  envExact,
	},
	{
		Name: "run/args-exact",
		Doc:  "Arguments arrive as they were given: empty, with spaces, newlines, quotes, dollars, UTF-8, dashes.",
		Run:  argsExact,
	},
	{
		Name: "run/entrypoint-and-command",
		Doc:  "Command replaces the image's CMD; Entrypoint replaces ENTRYPOINT, and with it CMD.",
		Run:  entrypoints,
	},
	{
		Name: "run/files-before-the-first-instruction",
		Doc:  "Files are there when the process starts, with content, mode and owner, in directories that are made.",
		Run:  filesFirst, Kernel: true,
	},
	{
		Name: "run/files-with-a-read-only-root", Kernel: true,
		Doc: "Files are put in although the root is read-only to the container.",
		Run: filesReadOnly,
	},
	{
		Name: "run/many-and-large-files", Kernel: true,
		Doc: "100 files and one of 8 MiB arrive.",
		Run: filesMany,
	},
	{
		Name: "run/files-over-the-image's",
		Doc:  "A file replaces one that the image has.",
		Run:  filesOverImage, Kernel: true,
	},
	{
		Name: "run/user-and-groups", Kernel: true,
		Doc: "The process runs as the user asked for, by name and by number, with its group and the supplementary groups.",
		Run: usersAndGroups,
	},
	{
		Name: "run/working-directory", Kernel: true,
		Doc: "The working directory is the one asked for; a missing one is made.",
		Run: workingDirectory,
	},
	{
		Name: "run/terminal", Kernel: true,
		Doc: "With TTY the process has a terminal; without, it has none.",
		Run: runTerminal,
	},
	{
		Name: "run/removed-by-itself",
		Doc:  "With AutoRemove a container is gone, and its name free, when its process has ended.",
		Run:  autoRemove,
	},
	{
		Name: "run/taken-name-is-refused",
		Doc:  "A taken name is AlreadyExists, and the container that has it is unharmed; also when it has ended.",
		Run:  takenContainer,
	},
	{
		Name: "run/taken-name-under-a-race",
		Doc:  "Of 8 parallel runs of one name exactly one wins; the others are AlreadyExists.",
		Run:  containerRace,
	},
	{
		Name: "run/name-is-free-after-removal",
		Doc:  "When RemoveContainer returns, the name can be used again.",
		Run:  containerAgain,
	},
	{
		Name: "run/sixteen-at-once", Timeout: 2 * DefaultTimeout,
		Doc: "16 containers are run in parallel on one network, and removed in parallel.",
		Run: sixteenContainers,
	},
}

func runLife(ctx context.Context, e *Env) error {
	labels := map[string]string{LabelRun: e.suite.name, "colour": "green=ß"}
	made, err := e.BoxOf(ctx, runtime.ContainerSpec{Labels: labels})
	if err != nil {
		return err
	}
	listed, err := e.Runtime.ListContainers(ctx, runtime.Filter{Labels: labels})
	if err != nil {
		return err
	}
	if len(listed) != 1 {
		return failed("list by label: expected one container, got %+v", listed)
	}
	image, err := e.Runtime.InspectImage(ctx, e.Image)
	if err != nil {
		return err
	}
	for _, ref := range []string{made.Name, made.ID} {
		seen, err := e.Runtime.InspectContainer(ctx, ref)
		if err != nil {
			return err
		}
		brief, got := seen.Brief(), listed[0]
		if brief.Created.Sub(got.Created).Abs() < time.Second {
			brief.Created = got.Created
		}
		if !reflect.DeepEqual(got, brief) {
			return failed("list: expected what an inspection tells, but for what takes one, %+v, got %+v", brief, got)
		}
		for _, c := range []runtime.Container{made.Container, seen} {
			switch {
			case c.ID == "" || c.ID != made.ID || c.Name != made.Name:
				return failed("expected container %q of ID %q, got %+v", made.Name, made.ID, c)
			case c.State != runtime.StateRunning:
				return failed("expected state %s, got %+v", runtime.StateRunning, c)
			case c.Labels["colour"] != "green=ß" || c.Labels[runtime.LabelManaged] != "true":
				return failed("expected the labels given and %s, got %q", runtime.LabelManaged, c.Labels)
			case c.Image != e.Image:
				return failed("expected image %q, got %q", e.Image, c.Image)
			case c.ImageID != image.ID:
				return failed("expected image ID %q, got %q", image.ID, c.ImageID)
			case time.Since(c.Created).Abs() > 10*time.Minute:
				return failed("expected a time of creation near now, got %s", c.Created)
			}
		}
	}
	return nil
}

// awkward are values that something on the way could mangle.
var awkward = map[string]string{
	"EMPTY": "", "EQUALS": "a=b=c", "NEWLINE": "one\ntwo\n", "UTF8": "žluťoučký 🐎", "SPACES": "  a  b  ", "QUOTES": `"a' \ b`,
	"DOLLAR": "$HOME ${HOME} $(id) `id` %s", "TAB": "a\tb", "lower": "x", "DASHES": "--x", "LONG": strings.Repeat("x", 10000),
}

func envExact(ctx context.Context, e *Env) error {
	env := maps.Clone(awkward)
	env["FROM_IMAGE"] = "replaced"
	out, err := e.Exited(ctx, runtime.ContainerSpec{Command: []string{"env"}, Env: env})
	if err != nil {
		return err
	}
	return sameEnv(out.Stdout, env, map[string]bool{"PATH": true, "HOME": true, "HOSTNAME": true, "TERM": true, "container": true})
}

// sameEnv compares the probe's environment with what was given; extra names may
// be there besides.
func sameEnv(out string, want map[string]string, extra map[string]bool) error {
	var list []string
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return failed("expected the environment, got %q", out)
	}
	got := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		if _, twice := got[k]; twice {
			return failed("variable %s is there twice", k)
		}
		got[k] = v
	}
	for k, v := range want {
		if seen, ok := got[k]; !ok || seen != v {
			return failed("variable %s: expected %q, got %q (there: %v)", k, v, seen, ok)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok && !extra[k] {
			return failed("variable %s=%q is there, though nobody gave it", k, got[k])
		}
	}
	return nil
}

func argsExact(ctx context.Context, e *Env) error {
	args := []string{"", "a b", "new\nline", `quote"s '`, `back\slash`, "$HOME", "žluťoučký", "--flag", "-", "*", "a=b", "", strings.Repeat("y", 5000)}
	out, err := e.Exited(ctx, runtime.ContainerSpec{Command: append([]string{"args"}, args...)})
	if err != nil {
		return err
	}
	return sameArgs(out.Stdout, args)
}

func sameArgs(out string, want []string) error {
	var got []string
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return failed("expected arguments, got %q", out)
	}
	return check(slices.Equal(got, want), "expected arguments %q, got %q", want, got)
}

func entrypoints(ctx context.Context, e *Env) error {
	for _, c := range []struct {
		entrypoint, command, want []string
	}{
		{nil, []string{"args", "a"}, []string{"a"}},
		{[]string{probe.Path, "args"}, nil, []string{}},
		{[]string{probe.Path, "args", "x"}, []string{"y", "z"}, []string{"x", "y", "z"}},
		{[]string{probe.Path}, []string{"args"}, []string{}},
		{[]string{}, []string{probe.Path, "args", "bare"}, []string{"bare"}},
	} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{Entrypoint: c.entrypoint, Command: c.command})
		if err != nil {
			return failed("entrypoint %q, command %q: %w", c.entrypoint, c.command, err)
		}
		if err := sameArgs(out.Stdout, c.want); err != nil {
			return failed("entrypoint %q, command %q: %w", c.entrypoint, c.command, err)
		}
	}
	return nil
}

// filesOf runs the probe's stat on files and returns the result by path.
func (e *Env) filesOf(ctx context.Context, spec runtime.ContainerSpec, paths ...string) (map[string]probe.File, error) {
	spec.Command = append([]string{"stat"}, paths...)
	// To read what belongs to others; root alone may not.
	spec.Capabilities = []string{"DAC_OVERRIDE"}
	out, err := e.Exited(ctx, spec)
	if err != nil {
		return nil, err
	}
	return filesIn(out.Stdout)
}

func filesIn(out string) (map[string]probe.File, error) {
	var list []probe.File
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, failed("expected files, got %q", out)
	}
	files := map[string]probe.File{}
	for _, f := range list {
		files[f.Path] = f
	}
	return files, nil
}

func filesFirst(ctx context.Context, e *Env) error {
	want := []runtime.File{
		{Path: "/etc/bottle/config.yaml", Content: []byte("a: b\n")},
		{Path: "/etc/bottle/secret", Mode: 0o600, UID: probeUID, GID: probeGID, Content: []byte("s\x00\xff")},
		{Path: "/opt/deep/down/run.sh", Mode: 0o755, UID: 7, GID: 8, Content: []byte("#!")},
		{Path: "/empty", Mode: 0o400},
		{Path: "/home/" + probeUser + "/.profile", Mode: 0o640, UID: probeUID, GID: extraGID, Content: []byte("x")},
	}
	paths := []string{"/opt", "/opt/deep", "/etc/bottle", "/home/" + probeUser}
	for _, f := range want {
		paths = append(paths, f.Path)
	}
	files, err := e.filesOf(ctx, runtime.ContainerSpec{Files: want}, paths...)
	if err != nil {
		return err
	}
	if err := sameFiles(files, want); err != nil {
		return err
	}
	for _, dir := range []string{"/opt", "/opt/deep", "/etc/bottle"} {
		if d := files[dir]; d.Type != "dir" || d.Mode != 0o755 || d.UID != 0 || d.GID != 0 {
			return failed("expected directory %s to be root's, 0755, got %+v", dir, d)
		}
	}
	// A directory that the image has keeps what it was.
	home := files["/home/"+probeUser]
	return check(home.Mode == 0o750 && home.UID == probeUID, "expected the image's directory to stay %d's, 0750, got %+v", probeUID, home)
}

func sameFiles(got map[string]probe.File, want []runtime.File) error {
	for _, f := range want {
		g := got[f.Path]
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if g.Type != "file" || g.Mode != mode || g.UID != f.UID || g.GID != f.GID || g.Size != int64(len(f.Content)) {
			return failed("file %s: expected mode %o, owner %d:%d, %d bytes, got %+v", f.Path, mode, f.UID, f.GID, len(f.Content), g)
		}
		if sum := sha(f.Content); g.SHA256 != sum {
			return failed("file %s: expected SHA-256 %s, got %s", f.Path, sum, g.SHA256)
		}
	}
	return nil
}

func filesReadOnly(ctx context.Context, e *Env) error {
	want := []runtime.File{
		{Path: "/etc/config", Mode: 0o444, Content: []byte("c")},
		{Path: "/srv/new/deep", Mode: 0o600, UID: probeUID, Content: []byte("d")},
		{Path: "/top", Content: []byte("t")},
	}
	files, err := e.filesOf(ctx, runtime.ContainerSpec{ReadOnly: true, Files: want}, "/etc/config", "/srv/new/deep", "/top")
	if err != nil {
		return err
	}
	if err := sameFiles(files, want); err != nil {
		return err
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{ReadOnly: true, Files: want})
	if err != nil {
		return err
	}
	for _, name := range []string{"/etc/config", "/srv/new/deep", "/srv/new/other", "/top", "/etc/passwd"} {
		out, err := b.Exec(ctx, "write", name, "x")
		if err != nil {
			return err
		}
		if out.Code == 0 {
			return failed("write to %s in a read-only root: expected a failure, but it succeeded", name)
		}
	}
	return nil
}

func filesMany(ctx context.Context, e *Env) error {
	big := make([]byte, 8<<20)
	for i := range big {
		big[i] = byte(i * 7 >> 3)
	}
	want := []runtime.File{{Path: "/data/big", Content: big}}
	paths := []string{"/data/big"}
	for i := range 100 {
		f := runtime.File{Path: fmt.Sprintf("/data/many/%02d/file", i), Mode: 0o600, Content: fmt.Appendf(nil, "content %d", i)}
		want, paths = append(want, f), append(paths, f.Path)
	}
	files, err := e.filesOf(ctx, runtime.ContainerSpec{Files: want}, paths...)
	if err != nil {
		return err
	}
	return sameFiles(files, want)
}

func filesOverImage(ctx context.Context, e *Env) error {
	want := []runtime.File{{Path: "/etc/group", Mode: 0o600, UID: 3, GID: 4, Content: []byte("root:x:0:\n")}}
	files, err := e.filesOf(ctx, runtime.ContainerSpec{Files: want}, "/etc/group")
	if err != nil {
		return err
	}
	return sameFiles(files, want)
}

func usersAndGroups(ctx context.Context, e *Env) error {
	for _, c := range []struct {
		user     string
		groups   []string
		uid, gid int
		extra    []int
	}{
		{"", nil, 0, 0, nil},
		{probeUser, nil, probeUID, probeGID, nil},
		{fmt.Sprint(probeUID), nil, probeUID, probeGID, nil},
		{"4321:8765", nil, 4321, 8765, nil},
		{probeUser + ":" + extraGroup, nil, probeUID, extraGID, nil},
		{"4321:8765", []string{extraGroup, "9999"}, 4321, 8765, []int{extraGID, 9999}},
	} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{User: c.user, Groups: c.groups, Command: []string{"id"}})
		if err != nil {
			return failed("user %q, groups %q: %w", c.user, c.groups, err)
		}
		var id probe.Identity
		if err := json.Unmarshal([]byte(out.Stdout), &id); err != nil {
			return failed("user %q: expected an identity, got %q %q", c.user, out.Stdout, out.Stderr)
		}
		if id.UID != c.uid || id.GID != c.gid {
			return failed("user %q: expected %d:%d, got %d:%d", c.user, c.uid, c.gid, id.UID, id.GID)
		}
		groups := slices.DeleteFunc(slices.Clone(id.Groups), func(g int) bool { return g == id.GID })
		slices.Sort(groups)
		if !slices.Equal(groups, c.extra) {
			return failed("user %q, groups %q: expected supplementary groups %v, got %v", c.user, c.groups, c.extra, groups)
		}
	}
	_, err := e.BoxOf(ctx, runtime.ContainerSpec{User: "nobody-of-this-name"})
	return kind(err, func(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) },
		"NotFound or InvalidArgument", "run as a user that the image does not have")
}

func workingDirectory(ctx context.Context, e *Env) error {
	for _, dir := range []string{"/data", "/made/for/this"} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{WorkDir: dir, Command: []string{"id"}})
		if err != nil {
			return err
		}
		var id probe.Identity
		if err := json.Unmarshal([]byte(out.Stdout), &id); err != nil || id.Dir != dir {
			return failed("expected working directory %s, got %q %q", dir, out.Stdout, out.Stderr)
		}
	}
	return nil
}

func runTerminal(ctx context.Context, e *Env) error {
	for _, want := range []bool{true, false} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{TTY: want, Command: []string{"tty"}})
		if err != nil {
			return err
		}
		var tty probe.TTY
		if err := json.Unmarshal([]byte(out.Stdout), &tty); err != nil {
			return failed("expected a description of the terminal, got %q", out.Stdout)
		}
		if tty.Stdout != want || tty.Stdin && !want || tty.Stderr != want {
			return failed("TTY %v: expected terminals accordingly, got %+v", want, tty)
		}
	}
	return nil
}

func autoRemove(ctx context.Context, e *Env) error {
	spec := runtime.ContainerSpec{Name: e.Name("auto"), AutoRemove: true, Command: []string{"sleep", "300ms"}}
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	spec.Networks = Attach(n)
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return err
	}
	status, err := e.Runtime.Wait(ctx, b.ID)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err == nil && status.Code != 0 {
		return failed("expected exit status 0, got %d", status.Code)
	}
	if err := poll(ctx, patience, func(ctx context.Context) error {
		_, err := e.Runtime.InspectContainer(ctx, b.ID)
		return kind(err, errdefs.IsNotFound, "NotFound", "inspect a container that removes itself")
	}); err != nil {
		return err
	}
	// Its name and its place on the network are free.
	spec.Command = []string{"sleep"}
	if err := poll(ctx, patience, func(ctx context.Context) error {
		b, err = e.BoxOf(ctx, spec)
		return err
	}); err != nil {
		return err
	}
	if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
		return err
	}
	return poll(ctx, patience, func(ctx context.Context) error { return e.Runtime.RemoveNetwork(ctx, n.ID) })
}

func takenContainer(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	for _, ended := range []bool{false, true} {
		if ended {
			if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
				return err
			}
		}
		_, err := e.Runtime.Run(ctx, runtime.ContainerSpec{Name: b.Name, Image: e.Image, Labels: e.Labels()})
		if err := kind(err, errdefs.IsAlreadyExists, "AlreadyExists", "run a container of a taken name"); err != nil {
			return err
		}
		seen, err := e.Runtime.InspectContainer(ctx, b.Name)
		if err != nil {
			return err
		}
		if seen.ID != b.ID || (seen.State == runtime.StateRunning) == ended {
			return failed("expected the first container unharmed, got %+v", seen)
		}
	}
	return nil
}

func containerRace(ctx context.Context, e *Env) error {
	const racers = 8
	name := e.Name("race")
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { _, errs[i] = e.BoxOf(ctx, runtime.ContainerSpec{Name: name, Networks: Attach(n)}) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errdefs.IsAlreadyExists(err):
			return failed("expected AlreadyExists for those that lose, got %w", err)
		}
	}
	if won != 1 {
		return failed("expected one winner of %d, got %d", racers, won)
	}
	seen, err := e.Runtime.InspectContainer(ctx, name)
	if err != nil {
		return err
	}
	return check(seen.State == runtime.StateRunning && len(seen.Networks) == 1, "expected the winner to run on its network, got %+v", seen)
}

func containerAgain(ctx context.Context, e *Env) error {
	name := e.Name("again")
	for i := range 3 {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Name: name})
		if err != nil {
			return failed("round %d: %w", i+1, err)
		}
		if err := e.Runtime.RemoveContainer(ctx, b.Name); err != nil {
			return err
		}
	}
	return nil
}

func sixteenContainers(ctx context.Context, e *Env) error {
	const many = 16
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	boxes := make([]*Box, many)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() { boxes[i], errs[i] = e.Box(ctx, n) })
	}
	wg.Wait()
	if err := first(errs...); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, b := range boxes {
		if a := b.Address(n); a == "" || seen[a] {
			return failed("expected an address of its own for each container, got %q twice or none", a)
		}
		seen[b.Address(n)] = true
	}
	for i, b := range boxes {
		wg.Go(func() { errs[i] = e.Runtime.RemoveContainer(ctx, b.Name) })
	}
	wg.Wait()
	return first(errs...)
}
