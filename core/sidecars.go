package core

import (
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// Bounds of a sidecar's container.
const (
	sidecarMemory = 512 << 20 // bytes; idle it needs less than 20 MiB
	sidecarPIDs   = 512
	// sidecarTmpfs holds what is delivered, twice while it is replaced, in bytes.
	sidecarTmpfs = 4 * delivery.MaxDocument
)

// proxyPort is where sidecars listen for the agent, and for each other.
const proxyPort = "8888"

// SidecarImage makes the image of the built-in sidecars for an architecture. The note is
// something that the user should know, or empty.
type SidecarImage func(arch string) (image *sidecarimage.Image, note string, err error)

// sidecarSteps are those of the plan's sidecars. They do not wait for each other: none
// needs another to become ready, and before the launch is done nobody asks them anything.
func (l *launch) sidecarSteps() []graph.Step {
	if len(l.roles()) == 0 {
		return nil
	}
	steps := []graph.Step{
		{Name: stepSidecarProgram, Run: l.readSidecarProgram},
		{Name: stepSidecarImage, Needs: []string{stepEngine, stepSidecarProgram}, Run: l.prepareSidecarImages},
	}
	if l.plan.Git != nil {
		steps = append(steps, graph.Step{Name: stepGitGate, Object: l.plan.Agent, Needs: []string{stepSidecarImage, stepClaim, stepEgress}, Run: l.startGitGate})
	}
	if l.plan.Supervise != nil {
		steps = append(steps, graph.Step{Name: stepSupervise, Object: l.plan.Agent, Needs: []string{stepSidecarImage, stepClaim}, Run: l.startSupervise})
	}
	if l.egress == nil {
		return steps
	}
	steps = append(steps,
		graph.Step{Name: stepCertificates, Run: l.makeCertificates},
		graph.Step{Name: stepFirewall, Object: l.plan.Agent, Needs: []string{stepCertificates, stepSidecarImage, stepClaim, stepEgress}, Run: l.startFirewall},
	)
	if l.egress.routes() {
		steps = append(steps, graph.Step{Name: stepEgressProxy, Object: l.plan.Agent, Needs: []string{stepCertificates, stepSidecarImage, stepClaim}, Run: l.startEgressProxy})
	}
	return steps
}

// roles are those of the bottle's sidecars, each after those that it needs.
func (l *launch) roles() []string {
	var roles []string
	if l.egress != nil {
		roles = l.egress.roles()
	}
	if l.plan.Git != nil {
		roles = append(roles, RoleGitGate)
	}
	if l.plan.Supervise != nil {
		roles = append(roles, RoleSupervise)
	}
	return roles
}

// replacement is the reference of the image that the manifest gives for a role; empty means
// the built-in one.
func (l *launch) replacement(role string) string {
	switch {
	case role == RoleGitGate:
		return l.plan.Git.Image
	case role == RoleSupervise:
		return l.plan.Supervise.Image
	case l.egress == nil:
		return ""
	}
	return l.egress.image(role)
}

// makeCertificates makes the bottle's authorities, in memory.
func (l *launch) makeCertificates(context.Context) (err error) {
	l.pair, err = ca.NewPair(l.plan.Name.Base, 0)
	return err
}

// readSidecarProgram reads the program of the built-in sidecars while the engine says of what
// architecture it is: most often of this one.
func (l *launch) readSidecarProgram(context.Context) error {
	builtIn := func(role string) bool { return l.replacement(role) == "" }
	if !slices.ContainsFunc(l.roles(), builtIn) && (l.egress == nil || !l.egress.foreign()) {
		return nil
	}
	image, note, err := l.makeSidecarImage(goruntime.GOARCH)
	l.likely = &madeImage{image, note, err}
	return nil // for another architecture it may be there
}

// madeImage is what [SidecarImage] returned.
type madeImage struct {
	image *sidecarimage.Image
	note  string
	err   error
}

func (l *launch) makeSidecarImage(arch string) (*sidecarimage.Image, string, error) {
	if l.opts.SidecarImage != nil {
		return l.opts.SidecarImage(arch)
	}
	return sidecarimage.FromHost(arch)
}

// prepareSidecarImages makes sure that the engine has the images of the sidecars.
func (l *launch) prepareSidecarImages(ctx context.Context) error {
	l.sidecarImages = map[string]string{}
	var builtIn []string
	for _, role := range l.roles() {
		reference := l.replacement(role)
		if reference == "" {
			builtIn = append(builtIn, role)
			continue
		}
		image := Image{Reference: reference}
		got, err := ensureImage(ctx, l.rt, image, l.report, stepSidecarImage)
		if err != nil {
			return fmt.Errorf("the image of the %s: %w", roleText(role), err)
		}
		l.sidecarImages[role] = imageRef(got, image)
	}
	foreign := l.egress != nil && l.egress.foreign()
	if len(builtIn) == 0 && !foreign {
		return nil
	}
	got, loaded, err := l.builtInImage(ctx)
	if err != nil {
		return err
	}
	if loaded {
		l.report.result(stepSidecarImage, "loaded")
	} else {
		l.report.result(stepSidecarImage, "it is there")
	}
	for _, role := range builtIn {
		l.sidecarImages[role] = got
	}
	if foreign {
		l.sidecarImages[RoleProbe] = got
	}
	return nil
}

// builtInImage is the image of the built-in sidecars, loaded if it is not there.
func (l *launch) builtInImage(ctx context.Context) (ref string, loaded bool, err error) {
	made := l.likely
	if made == nil || l.info.Arch != goruntime.GOARCH {
		image, note, err := l.makeSidecarImage(l.info.Arch)
		made = &madeImage{image, note, err}
	}
	if made.err != nil {
		return "", false, withKind(KindImage, made.err)
	}
	image := made.image
	if made.note != "" {
		l.report.note(stepSidecarImage, made.note)
	}
	got, loaded, note, err := sidecarimage.Ensure(ctx, l.rt, image)
	if err != nil {
		return "", false, err
	}
	if note != "" {
		l.report.note(stepSidecarImage, note)
	}
	return orDefault(got.ID, image.Tag()), loaded, nil
}

// sidecarSpec is what is the same for all sidecars.
func (l *launch) sidecarSpec(role string, networks ...string) runtime.ContainerSpec {
	spec := runtime.ContainerSpec{
		Name: sidecarName(l.name, role), Hostname: role, Image: l.sidecarImages[role], Labels: l.labels(role),
		ReadOnly: true,
	}
	for i, network := range networks {
		attachment := runtime.NetworkAttachment{Network: network}
		if i == 0 {
			attachment.Aliases = []string{role} // on the internal network
		}
		spec.Networks = append(spec.Networks, attachment)
	}
	if l.info.Has(runtime.FeatureMemoryLimit) {
		spec.Limits.Memory = sidecarMemory
	}
	if l.info.Has(runtime.FeaturePIDsLimit) {
		spec.Limits.PIDs = sidecarPIDs
	}
	return spec
}

// builtInSpec is a sidecar that runs our program, or an image that does as it does.
func (l *launch) builtInSpec(role string, networks ...string) runtime.ContainerSpec {
	spec := l.sidecarSpec(role, networks...)
	spec.Command = []string{role, delivery.StdinFlag}
	spec.User = fmt.Sprintf("%d:%d", sidecarimage.UID, sidecarimage.UID)
	spec.Tmpfs = []runtime.Tmpfs{{Target: delivery.Dir, Size: sidecarTmpfs}}
	return spec
}

// runSidecar starts a sidecar's container.
func (l *launch) runSidecar(ctx context.Context, step string, spec runtime.ContainerSpec) (runtime.Container, error) {
	c, err := l.rt.Run(ctx, spec)
	if errdefs.IsNotFound(err) && l.replacement(spec.Labels[LabelRole]) == "" && ctx.Err() == nil {
		// Another version of bottle may have dropped the image just now.
		var again error
		if spec.Image, _, again = l.builtInImage(ctx); again == nil {
			c, err = l.rt.Run(ctx, spec)
		}
	}
	if err != nil {
		return c, err
	}
	id := c.ID
	l.undo.Push("remove "+roleText(spec.Labels[LabelRole])+" container", spec.Name, func(ctx context.Context) error { return l.rt.RemoveContainer(ctx, id) })
	l.report.result(step, spec.Name)
	return c, nil
}

// lookTime bounds finding out why a sidecar is not ready.
const lookTime = 5 * time.Second

// launchedSidecars are those that the launch has started.
func (l *launch) launchedSidecars() []Sidecar {
	var list []Sidecar
	for role, c := range map[string]runtime.Container{
		RoleFirewall: l.firewall, RoleEgressProxy: l.egressProxy, RoleGitGate: l.gitGate, RoleSupervise: l.superviseBox,
	} {
		if c.ID != "" {
			list = append(list, Sidecar{Role: role, Container: c.ID, State: runtime.StateRunning})
		}
	}
	return list
}

// notReady adds to the reason why a sidecar is not ready how it ended, if it did, and its
// last words.
func (l *launch) notReady(ctx context.Context, role, container string, reason error) error {
	if ctx.Err() != nil {
		return reason
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	what := fmt.Sprintf("the %s is not ready", roleText(role))
	switch c, err := l.rt.InspectContainer(ctx, container); {
	case errdefs.IsNotFound(err):
		what += ": its container is gone"
	case err == nil && c.State == runtime.StateExited:
		what += ": it has ended with status " + statusText(c.Exit)
	}
	return withKind(KindLaunch, fmt.Errorf("%s: %w%s", what, reason, saidText(lastWords(ctx, l.rt, container))))
}

// roleText is a role in words.
func roleText(role string) string {
	if role == RoleSupervise {
		return "supervise sidecar"
	}
	return strings.ReplaceAll(role, "-", " ")
}

func statusText(s runtime.ExitStatus) string {
	if s.OOMKilled {
		return fmt.Sprintf("%d (it needed more memory than it may have)", s.Code)
	}
	return fmt.Sprint(s.Code)
}
