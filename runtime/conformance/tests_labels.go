package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

var labelTests = []Test{
	{
		Name: "labels/filters",
		Doc:  "A list holds what carries every label asked for with its value, and nothing else; networks, containers and images alike.",
		Run:  labelFilters,
	},
	{
		Name: "labels/values",
		Doc:  "Labels keep their values: empty, with `=`, spaces, quotes, newlines, UTF-8, long.",
		Run:  labelValues,
	},
	{
		Name: "labels/managed-is-not-forged",
		Doc:  "An object is bottle's whatever the labels that were asked for say.",
		Run:  labelForged,
	},
	{
		Name: "labels/oldest-first",
		Doc:  "Networks and containers are listed oldest first, those that have ended too.",
		Run:  oldestFirst,
	},
	{
		Name: "labels/of-the-image-are-not-the-container's-own",
		Doc:  "A container of a labelled image is found by its own labels, and carries bottle's.",
		Run: func(ctx context.Context, e *Env) error {
			b, err := e.BoxOf(ctx, runtime.ContainerSpec{Labels: map[string]string{LabelRun: e.Token()}})
			if err != nil {
				return err
			}
			listed, err := e.Runtime.ListContainers(ctx, runtime.Filter{Labels: e.Labels()})
			if err != nil {
				return err
			}
			return check(b.Labels[runtime.LabelManaged] == "true" && len(listed) == 0, "expected no container by the image's label, got %+v", listed)
		},
	},
	{
		Name: "labels/foreign-objects-are-untouched",
		Doc:  "What bottle did not make is not listed; inspecting it is NotFound (an image excepted), and changing it PermissionDenied.",
		Run:  foreignUntouched,
	},
	{
		Name: "labels/containers-removed-idempotently",
		Doc:  "Removing a container that is not there is no error.",
		Run: func(ctx context.Context, e *Env) error {
			b, err := e.Box(ctx)
			if err != nil {
				return err
			}
			return first(e.Runtime.RemoveContainer(ctx, b.Name), e.Runtime.RemoveContainer(ctx, b.Name), e.Runtime.RemoveContainer(ctx, b.ID),
				e.Runtime.RemoveContainer(ctx, e.Name("never")))
		},
	},
}

func labelFilters(ctx context.Context, e *Env) error {
	key := "conformance." + e.Token()
	red, blue := map[string]string{key: "red", "size": "1"}, map[string]string{key: "blue", "size": "1"}
	for _, labels := range []map[string]string{red, blue} {
		if _, err := e.NetworkOf(ctx, runtime.NetworkSpec{Internal: true, Labels: labels}); err != nil {
			return err
		}
		if _, err := e.BoxOf(ctx, runtime.ContainerSpec{Labels: labels}); err != nil {
			return err
		}
		if _, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY Dockerfile /\n"}, runtime.BuildSpec{Labels: labels}); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		filter map[string]string
		want   int
	}{
		{map[string]string{key: "red"}, 1}, {map[string]string{key: "red", "size": "1"}, 1}, {map[string]string{key: "red", "size": "2"}, 0},
		{map[string]string{key: "re"}, 0}, {map[string]string{key: ""}, 0}, {map[string]string{key + "x": "red"}, 0},
	} {
		f := runtime.Filter{Labels: c.filter}
		networks, err := e.Runtime.ListNetworks(ctx, f)
		if err != nil {
			return err
		}
		containers, err := e.Runtime.ListContainers(ctx, f)
		if err != nil {
			return err
		}
		images, err := e.Runtime.ListImages(ctx, f)
		if err != nil {
			return err
		}
		if len(networks) != c.want || len(containers) != c.want || len(images) != c.want {
			return failed("filter %q: expected %d of each, got %d networks, %d containers, %d images", c.filter, c.want, len(networks), len(containers), len(images))
		}
	}
	return nil
}

func labelValues(ctx context.Context, e *Env) error {
	labels := map[string]string{
		LabelRun: e.suite.name, "empty": "", "equals": "a=b,c=d", "spaces": "  a b ", "quotes": `"a' \`, "utf8": "žluťoučký 🐎",
		"newline": "a\nb", "long": strings.Repeat("x", 2000), "json": `{"a":[1,2]}`, "with.dots/and-slash": "y",
	}
	n, err := e.NetworkOf(ctx, runtime.NetworkSpec{Internal: true, Labels: labels})
	if err != nil {
		return err
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Labels: labels})
	if err != nil {
		return err
	}
	network, err := e.Runtime.InspectNetwork(ctx, n.ID)
	if err != nil {
		return err
	}
	c, err := e.Runtime.InspectContainer(ctx, b.ID)
	if err != nil {
		return err
	}
	for what, got := range map[string]map[string]string{"network": network.Labels, "container": c.Labels} {
		for k, v := range labels {
			if g, ok := got[k]; !ok || g != v {
				return failed("%s, label %q: expected %q, got %q (there: %v)", what, k, v, g, ok)
			}
		}
	}
	listed, err := e.Runtime.ListContainers(ctx, runtime.Filter{Labels: labels})
	if err != nil {
		return err
	}
	return check(len(listed) == 1, "expected to find the container by all its labels, got %+v", listed)
}

func labelForged(ctx context.Context, e *Env) error {
	labels := map[string]string{LabelRun: e.suite.name, runtime.LabelManaged: "false"}
	n, err := e.NetworkOf(ctx, runtime.NetworkSpec{Internal: true, Labels: labels})
	if err == nil && n.Labels[runtime.LabelManaged] != "true" || err != nil && !errdefs.IsInvalidArgument(err) {
		return failed("network: expected the label to be bottle's or the call InvalidArgument, got %+v, %v", n, err)
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Labels: labels})
	if err == nil && b.Labels[runtime.LabelManaged] != "true" || err != nil && !errdefs.IsInvalidArgument(err) {
		return failed("container: expected the label to be bottle's or the call InvalidArgument, got %+v, %v", b, err)
	}
	return nil
}

func oldestFirst(ctx context.Context, e *Env) error {
	var networks, containers []string
	for i := range 4 {
		n, err := e.Network(ctx, true)
		if err != nil {
			return err
		}
		b, err := e.Box(ctx)
		if err != nil {
			return err
		}
		if i%2 == 0 {
			if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
				return err
			}
		}
		networks, containers = append(networks, n.ID), append(containers, b.ID)
	}
	filter := runtime.Filter{Labels: e.Labels()}
	ns, err := e.Runtime.ListNetworks(ctx, filter)
	if err != nil {
		return err
	}
	cs, err := e.Runtime.ListContainers(ctx, filter)
	if err != nil {
		return err
	}
	var gotN, gotC []string
	for _, n := range ns {
		gotN = append(gotN, n.ID)
	}
	for _, c := range cs {
		gotC = append(gotC, c.ID)
	}
	return check(slices.Equal(gotN, networks) && slices.Equal(gotC, containers), "expected networks %q and containers %q, got %q and %q", networks, containers, gotN, gotC)
}

// foreignUntouched needs somebody who makes objects past the interface: the
// engine's own tests know how. Where nobody does, what there is on the engine
// besides is looked at, and not touched, since it is somebody's.
func foreignUntouched(ctx context.Context, e *Env) error {
	if err := e.listsOwnOnly(ctx); err != nil {
		return err
	}
	foreign := e.suite.opts.Foreign
	if foreign == nil {
		e.suite.report.warn("nobody could make objects past the interface for labels/foreign-objects-are-untouched: what it proves is that lists leave such objects out")
		return nil
	}
	names := Names{Network: e.Name("foreign"), Container: e.Name("foreign"), Image: e.Ref("foreign")}
	img, err := e.foreignImage(names.Image)
	if err != nil {
		return err
	}
	remove, err := foreign(ctx, names, img)
	if err != nil {
		return failed("make foreign objects: %w", err)
	}
	e.Cleanup(remove)
	before, err := e.Runtime.Inventory(ctx)
	if err != nil {
		return err
	}
	if err := e.listsOwnOnly(ctx); err != nil {
		return err
	}
	for what, err := range map[string]error{
		"remove network": e.Runtime.RemoveNetwork(ctx, names.Network), "remove container": e.Runtime.RemoveContainer(ctx, names.Container),
		"stop container": e.Runtime.Stop(ctx, names.Container, 0), "kill container": e.Runtime.Kill(ctx, names.Container, "SIGKILL"),
		"remove image":        e.Runtime.RemoveImage(ctx, names.Image),
		"copy into container": e.Runtime.CopyTo(ctx, names.Container, "/", strings.NewReader(string(archive(regular("file", 0o644, "x"))))),
		"exec in container":   second(e.Runtime.Exec(ctx, names.Container, runtime.ExecSpec{Command: []string{"/bottle-probe", "echo"}})),
	} {
		if err := kind(err, errdefs.IsPermissionDenied, "PermissionDenied", what+" that is foreign"); err != nil {
			return err
		}
	}
	for what, err := range map[string]error{
		"network": second(e.Runtime.InspectNetwork(ctx, names.Network)), "container": second(e.Runtime.InspectContainer(ctx, names.Container)),
	} {
		if err := kind(err, errdefs.IsNotFound, "NotFound", "inspect a foreign "+what); err != nil {
			return err
		}
	}
	if _, err := e.Runtime.InspectImage(ctx, names.Image); err != nil {
		return failed("inspect a foreign image: %w", err)
	}
	// Their names are taken all the same.
	_, err = e.NetworkOf(ctx, runtime.NetworkSpec{Name: names.Network})
	if err := kind(err, errdefs.IsAlreadyExists, "AlreadyExists", "create a network of a foreign one's name"); err != nil {
		return err
	}
	_, err = e.BoxOf(ctx, runtime.ContainerSpec{Name: names.Container})
	if err := kind(err, errdefs.IsAlreadyExists, "AlreadyExists", "run a container of a foreign one's name"); err != nil {
		return err
	}
	after, err := e.Runtime.Inventory(ctx)
	if err != nil {
		return err
	}
	lines := difference(snapshot(before), snapshot(after))
	return check(len(lines) == 0, "expected foreign objects untouched, but: %s", strings.Join(lines, "; "))
}

func second[T any](_ T, err error) error { return err }

// listsOwnOnly checks that every object listed is bottle's.
func (e *Env) listsOwnOnly(ctx context.Context) error {
	networks, err := e.Runtime.ListNetworks(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	containers, err := e.Runtime.ListContainers(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	images, err := e.Runtime.ListImages(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	for _, n := range networks {
		if n.Labels[runtime.LabelManaged] != "true" {
			return failed("expected bottle's networks alone in the list, got %+v", n)
		}
	}
	for _, c := range containers {
		if c.Labels[runtime.LabelManaged] != "true" {
			return failed("expected bottle's containers alone in the list, got %+v", c)
		}
	}
	for _, i := range images {
		if i.Labels[runtime.LabelManaged] != "true" {
			return failed("expected bottle's images alone in the list, got %+v", i)
		}
	}
	return check(len(images) > 0, "expected the probe image in the list")
}

var errorTests = []Test{
	{
		Name: "errors/name-operation-and-object",
		Doc:  "An error is a *runtime.Error that says what was done to what, in its fields and in its text.",
		Run:  errorsTell,
	},
	{
		Name: "errors/invalid-arguments",
		Doc:  "Names, paths and specs that cannot be are InvalidArgument, before anything is made.",
		Run:  invalidArguments,
	},
	{
		Name: "errors/ended-context",
		Doc:  "Every call whose context has ended returns its error at once and does nothing.",
		Run:  endedContext,
	},
}

func errorsTell(ctx context.Context, e *Env) error {
	missing := e.Name("missing")
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	for what, c := range map[string]struct {
		err    error
		object string
	}{
		"InspectNetwork":   {second(e.Runtime.InspectNetwork(ctx, missing)), missing},
		"CreateNetwork":    {second(e.Runtime.CreateNetwork(ctx, runtime.NetworkSpec{Name: n.Name})), n.Name},
		"InspectContainer": {second(e.Runtime.InspectContainer(ctx, missing)), missing},
		"Run":              {second(e.Runtime.Run(ctx, runtime.ContainerSpec{Name: missing, Image: e.Ref("none")})), missing},
		"Wait":             {second(e.Runtime.Wait(ctx, missing)), missing},
		"Kill":             {e.Runtime.Kill(ctx, missing, "SIGTERM"), missing},
		"Logs":             {e.Runtime.Logs(ctx, missing, runtime.LogOptions{}), missing},
		"Exec":             {second(e.Runtime.Exec(ctx, missing, runtime.ExecSpec{Command: []string{"x"}})), missing},
		"CopyFrom":         {second(e.Runtime.CopyFrom(ctx, missing, "/etc")), missing},
		"InspectImage":     {second(e.Runtime.InspectImage(ctx, missing)), missing},
	} {
		var typed *runtime.Error
		switch {
		case c.err == nil:
			return failed("%s: expected an error, but it succeeded", what)
		case !errors.As(c.err, &typed):
			return failed("%s: expected a *runtime.Error, got %T: %w", what, c.err, c.err)
		case typed.Op == "" || typed.Object != c.object || typed.Engine != e.Info.Engine:
			return failed("%s: expected engine %s, an operation and object %s, got %+v", what, e.Info.Engine, c.object, *typed)
		case !strings.Contains(c.err.Error(), c.object) || !strings.Contains(c.err.Error(), typed.Op):
			return failed("%s: expected operation and object in the text, got %q", what, c.err)
		}
	}
	return nil
}

func invalidArguments(ctx context.Context, e *Env) error {
	for _, name := range []string{"", "Upper", "-dash", "a b", "a/b", "../a", "ä", strings.Repeat("x", 64)} {
		_, err := e.Runtime.CreateNetwork(ctx, runtime.NetworkSpec{Name: name})
		if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", fmt.Sprintf("create network %q", name)); err != nil {
			return err
		}
		_, err = e.Runtime.Run(ctx, runtime.ContainerSpec{Name: name, Image: e.Image})
		if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", fmt.Sprintf("run container %q", name)); err != nil {
			return err
		}
	}
	for what, spec := range map[string]runtime.ContainerSpec{
		"a variable with = in its name":  {Env: map[string]string{"A=B": "c"}},
		"a value with NUL":               {Env: map[string]string{"A": "b\x00c"}},
		"a relative file":                {Files: []runtime.File{{Path: "etc/x"}}},
		"a file with dots":               {Files: []runtime.File{{Path: "/etc/../x"}}},
		"a mode of more than permission": {Files: []runtime.File{{Path: "/x", Mode: 0o10000}}},
		"a relative tmpfs":               {Tmpfs: []runtime.Tmpfs{{Target: "x"}}},
		"a negative limit":               {Limits: runtime.Limits{Memory: -1}},
		"a relative mount":               {Mounts: []runtime.Mount{{Source: "x", Target: "/y"}}},
	} {
		e.Fill(&spec)
		_, err := e.Runtime.Run(ctx, spec)
		if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", "run with "+what); err != nil {
			return err
		}
	}
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	return first(
		kind(second(e.Runtime.Exec(ctx, b.ID, runtime.ExecSpec{})), errdefs.IsInvalidArgument, "InvalidArgument", "exec of nothing"),
		kind(e.Runtime.Kill(ctx, b.ID, "NOSUCHSIGNAL"), errdefs.IsInvalidArgument, "InvalidArgument", "kill with an unknown signal"),
		kind(second(e.Runtime.CopyFrom(ctx, b.ID, "etc")), errdefs.IsInvalidArgument, "InvalidArgument", "copy of a relative path"),
		kind(e.Runtime.CopyTo(ctx, b.ID, "data", strings.NewReader("")), errdefs.IsInvalidArgument, "InvalidArgument", "copy into a relative path"),
	)
}

func endedContext(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	dir, err := e.Context(map[string]string{"Dockerfile": "FROM " + e.Image + "\n"})
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	began := time.Now()
	for what, err := range map[string]error{
		"CreateNetwork":    second(e.Runtime.CreateNetwork(ended, runtime.NetworkSpec{Name: e.Name("never")})),
		"InspectNetwork":   second(e.Runtime.InspectNetwork(ended, n.ID)),
		"ListNetworks":     second(e.Runtime.ListNetworks(ended, runtime.Filter{})),
		"RemoveNetwork":    e.Runtime.RemoveNetwork(ended, n.ID),
		"BuildImage":       second(e.Runtime.BuildImage(ended, runtime.BuildSpec{ContextDir: dir, Tags: []string{e.Ref("never")}})),
		"InspectImage":     second(e.Runtime.InspectImage(ended, e.Image)),
		"ListImages":       second(e.Runtime.ListImages(ended, runtime.Filter{})),
		"Run":              second(e.Runtime.Run(ended, runtime.ContainerSpec{Name: e.Name("never"), Image: e.Image})),
		"InspectContainer": second(e.Runtime.InspectContainer(ended, b.ID)),
		"ListContainers":   second(e.Runtime.ListContainers(ended, runtime.Filter{})),
		"Wait":             second(e.Runtime.Wait(ended, b.ID)),
		"Stop":             e.Runtime.Stop(ended, b.ID, time.Second),
		"Kill":             e.Runtime.Kill(ended, b.ID, "SIGKILL"),
		"RemoveContainer":  e.Runtime.RemoveContainer(ended, b.ID),
		"Exec":             second(e.Runtime.Exec(ended, b.ID, runtime.ExecSpec{Command: []string{"/bottle-probe", "echo"}})),
		"CopyTo":           e.Runtime.CopyTo(ended, b.ID, "/data", strings.NewReader(string(archive(regular("file", 0o644, "x"))))),
		"CopyFrom":         second(e.Runtime.CopyFrom(ended, b.ID, "/etc")),
		"Logs":             e.Runtime.Logs(ended, b.ID, runtime.LogOptions{}),
		"Info":             second(e.Runtime.Info(ended)),
		"Brief":            second(e.Runtime.Brief(ended)),
		"Inventory":        second(e.Runtime.Inventory(ended)),
	} {
		if err := kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", what); err != nil {
			return err
		}
	}
	if took := time.Since(began); took > patience {
		return failed("expected calls with an ended context to return at once, 20 of them took %s", took)
	}
	seen, err := e.Runtime.InspectContainer(ctx, b.ID)
	if err != nil {
		return err
	}
	return check(seen.State == runtime.StateRunning, "expected the container to run on, it is %s", seen.State)
}
