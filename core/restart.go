package core

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/trust"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/config"
)

// The steps of a restart that a launch has not.
const (
	stepCarry   = "carry files over"
	stepReplace = "remove the old container"
)

// RestartOptions say how a bottle is restarted.
type RestartOptions struct {
	// Observer is told about progress; it may be nil.
	Observer Observer
	// Keep are further paths to carry over, absolute or below the agent's home as ~/….
	Keep []string
	// Force removes what another restart has left behind, or is still at.
	Force bool
	// Teardown is the context for clearing up, as of [LaunchOptions].
	Teardown context.Context
}

// Restart replaces the agent's container: by one of an image that was approved meanwhile, or
// that is built anew if what it is built from has changed. The workspace, the files that the
// manifest puts in, the variables and what is kept besides are carried over as the agent has
// them; everything else in the container is as in the image again. The sidecars, the networks
// and the policy in force stay as they are, and so do the values of variables: nothing of the
// operator's environment is needed.
//
// The old container runs until the new one is complete. On an error the old one is left as
// it was, and the new one is gone, unless the error says otherwise. What the agent does while
// its files are carried over may be lost.
func (b *Bottle) Restart(ctx context.Context, opts RestartOptions) error {
	old, err := b.rt.InspectContainer(ctx, b.agent())
	if errdefs.IsNotFound(err) || err == nil && old.State != runtime.StateRunning {
		return Errorf(KindNotFound, "bottle %s cannot be restarted: its agent's container is gone, and the workspace with it: remove it with bottle rm %s", b.Name, b.Name)
	}
	if err != nil {
		return err
	}
	notes, err := readRestart(old.Labels)
	if err != nil {
		return Errorf(KindUnsupported, "bottle %s cannot be restarted: %w", b.Name, err)
	}
	l := &launch{
		rt: b.rt, plan: notes.Plan, report: newReporter(opts.Observer), id: old.Labels[LabelLaunch], name: b.Name,
		egress: newWayOut(notes.Plan, Secrets{}),
	}
	// Whose it is does not change.
	before := statusOf(old.Labels, "", old.Created)
	l.opts.Detach = before.Detached
	if before.Owner != nil {
		l.opts.Owner = *before.Owner
	}
	r := &restart{launch: l, bottle: b, old: old, notes: notes, keep: opts.Keep, force: opts.Force}
	if err := r.prepare(); err != nil {
		return fmt.Errorf("bottle %s: %w", b.Name, err)
	}
	err = graph.Run(ctx, r.steps(), l.report)
	if err != nil {
		return &LaunchError{Err: launchKind(ctx, r.explain(err)), Teardown: withKind(KindLeftover, r.undoNew(ctx, opts.Teardown))}
	}
	return r.replace(ctx, opts.Teardown)
}

// kept is what a restarted bottle has from before.
type kept struct {
	name      string // of the new container
	labels    map[string]string
	corporate []ca.File
}

type restart struct {
	*launch
	bottle *Bottle
	old    runtime.Container
	notes  restartNotes
	keep   []string
	force  bool

	renewed *config.Supervise // with the operator's new Dockerfile; nil if there is none
	before  account           // the agent's user in the old container
}

// prepare makes of the notes what the steps of a launch need.
func (r *restart) prepare() error {
	generation, err := strconv.Atoi(orDefault(r.old.Labels[LabelGeneration], "0"))
	if err != nil || generation < 0 {
		return fmt.Errorf("its label %s is no number", LabelGeneration)
	}
	r.kept = &kept{name: restartedName(r.name, generation+1), labels: map[string]string{LabelGeneration: strconv.Itoa(generation + 1)}}
	for k, v := range r.old.Labels {
		// What an image says of itself is its own.
		if strings.HasPrefix(k, "dev.bottle.") && !slices.Contains([]string{runtime.LabelManaged, LabelGeneration, LabelContent, LabelSource}, k) {
			r.kept.labels[k] = v
		}
	}
	if r.notes.Roots != "" {
		roots, err := ca.Roots(ca.File{Name: "the label " + LabelRestart, Data: []byte(r.notes.Roots)}, time.Now())
		if err != nil {
			return err
		}
		r.pair = &ca.Pair{Agent: &ca.Authority{Cert: roots[0]}}
		if len(roots) > 1 {
			r.kept.corporate = []ca.File{{Name: "the corporate roots of the launch", Data: trust.PEM(roots[1:])}}
		}
	}
	return nil
}

func (r *restart) steps() []graph.Step {
	ready := []string{stepEngine, stepImage, stepClaim}
	steps := []graph.Step{
		{Name: stepEngine, Run: r.checkEngine},
		{Name: stepImage, Object: r.imageName(), Needs: []string{stepEngine}, Run: r.chooseImage},
		{Name: stepClaim, Object: internalNetworkName(r.name), Run: r.findBottle},
		{Name: stepAgent, Object: r.kept.name, Needs: ready, Run: r.runAgent},
		{Name: stepUser, Object: r.plan.User, Needs: []string{stepAgent}, Run: r.findUser},
		{Name: stepVariables, Needs: []string{stepUser}, Run: r.passVariables},
		{Name: stepCarry, Needs: []string{stepUser}, Run: r.carry},
	}
	if r.egress != nil {
		steps = append(steps, graph.Step{Name: stepTrust, Needs: []string{stepAgent}, Run: r.installTrust})
	}
	if s := r.plan.Supervise; s != nil {
		steps = append(steps, graph.Step{Name: stepPolicy, Needs: []string{stepAgent}, Run: r.sharePolicy})
		if len(s.MCP) > 0 {
			steps = append(steps, graph.Step{Name: stepRegister, Needs: []string{stepCarry}, Run: r.registerSupervise})
		}
	}
	return steps
}

func (r *restart) imageName() string {
	if b := r.plan.Image.Build; b != nil {
		return b.Dockerfile
	}
	return r.plan.Image.Reference
}

// findBottle finds the internal network, and reads what only the old container has.
func (r *restart) findBottle(ctx context.Context) error {
	networks, err := r.rt.ListNetworks(ctx, runtime.Filter{Labels: map[string]string{LabelLaunch: r.id, LabelRole: RoleInternal}})
	if err != nil {
		return err
	}
	if len(networks) != 1 {
		return Errorf(KindNotFound, "the bottle has %d internal networks, and should have one", len(networks))
	}
	r.network = networks[0]
	if r.force {
		if err := r.removeOthers(ctx); err != nil {
			return err
		}
	}
	if r.before, err = resolveUser(ctx, inContainer(r.rt, r.old.ID), r.old.Labels[LabelUser]); err != nil {
		return err
	}
	return r.readVariables(ctx)
}

// removeOthers removes what other restarts have left.
func (r *restart) removeOthers(ctx context.Context) error {
	list, err := agentsOf(ctx, r.rt, r.id)
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.ID != r.old.ID {
			if err := r.rt.RemoveContainer(ctx, c.ID); err != nil {
				return err
			}
			r.report.note(stepClaim, "removed "+c.Name+", which another restart had left")
		}
	}
	return nil
}

// readVariables takes the values of the secret variables from the old container. The agent
// may have changed them: what it gets back is its own.
func (r *restart) readVariables(ctx context.Context) error {
	if len(r.plan.Secrets) == 0 {
		return nil
	}
	out := &cappedBuffer{max: inside.MaxEnv}
	status, err := r.rt.Exec(ctx, r.old.ID, runtime.ExecSpec{Command: inside.Get(inside.EnvFile), WorkDir: "/", Stdout: out})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("status %d", status.Code)
	}
	if err != nil {
		return fmt.Errorf("reading the agent's variables: %w", err)
	}
	values := inside.DecodeEnv(out.Bytes(), func(name string) bool { return r.plan.Secrets[name] != "" })
	var missing []string
	for name := range r.plan.Secrets {
		if _, ok := values[name]; !ok {
			missing = append(missing, name)
		}
	}
	for _, name := range missing {
		delete(r.plan.Secrets, name)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		r.report.note(stepClaim, fmt.Sprintf("the agent has done away with its variables %s: it goes on without them", strings.Join(missing, ", ")))
	}
	r.opts.Secrets = NewSecrets(values)
	return nil
}

// sharePolicy gives the agent its copy of the policy that is in force now, which need not be
// that of the launch.
func (r *restart) sharePolicy(ctx context.Context) error {
	live, err := r.bottle.Policy(ctx)
	if err != nil {
		return err
	}
	if live.Supervise == nil {
		return nil // its sidecar is gone: ps says so
	}
	return sharePolicy(ctx, r.rt, r.container.ID, live.Supervise)
}

// carry copies the workspace, the manifest's files and what is to be kept.
func (r *restart) carry(ctx context.Context) error {
	var paths []string
	add := func(p string) {
		if p = path.Clean(p); !slices.ContainsFunc(paths, func(q string) bool { return p == q || strings.HasPrefix(p, q+"/") }) {
			paths = append(paths, p)
		}
	}
	if r.plan.Workspace.Target != "" {
		add(r.plan.Workspace.Target)
	}
	for _, k := range r.keep {
		if !path.IsAbs(k) && !strings.HasPrefix(k, "~/") {
			return Errorf(KindInput, "%q cannot be kept: give a path inside the bottle, absolute or below ~/", k)
		}
		if k = expandHome(k, r.before.Home); k == "/" || k == inside.Dir || strings.HasPrefix(k, inside.Dir+"/") {
			return Errorf(KindInput, "%q cannot be kept", k)
		}
		add(k)
	}
	if r.plan.Workspace.Source != "" {
		add(recordFile)
	}
	for _, f := range r.plan.Files {
		add(expandHome(f.Target, r.before.Home))
	}
	var carried []string
	for _, p := range paths {
		ok, err := r.carryPath(ctx, p)
		if err != nil {
			return err
		}
		if ok && p != recordFile {
			carried = append(carried, p)
		}
	}
	r.report.result(stepCarry, strings.Join(carried, ", "))
	return nil
}

// carryPath copies one path, if it is there. What belonged to the agent's user does so
// again, whatever number the new image gives it; what lies below its old home moves to the
// new one.
func (r *restart) carryPath(ctx context.Context, p string) (bool, error) {
	archive, err := r.rt.CopyFrom(ctx, r.old.ID, p)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = archive.Close() }() // it was only read
	target := p
	if rest, ok := strings.CutPrefix(p, strings.TrimRight(r.before.Home, "/")+"/"); ok && r.before.Home != "/" {
		target = path.Join(r.user.Home, rest)
	}
	it := item{target, func(_ context.Context, w *tar.Writer, name string) error {
		return r.rewrite(tar.NewReader(archive), w, path.Base(p), name)
	}}
	err = place(ctx, r.rt, r.container.ID, []item{it}, r.user)
	if err != nil {
		err = fmt.Errorf("carrying %s over: %w", p, err)
	}
	return err == nil, err
}

// rewrite copies an archive of a path whose entries begin with one name to entries that
// begin with another.
func (r *restart) rewrite(in *tar.Reader, out *tar.Writer, from, to string) error {
	renamed := func(name string) string {
		return to + strings.TrimPrefix(name, from)
	}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h.Name = renamed(h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = renamed(h.Linkname)
		}
		if h.Uid == r.before.UID {
			h.Uid = r.user.UID
		}
		if h.Gid == r.before.GID {
			h.Gid = r.user.GID
		}
		h.Uname, h.Gname, h.Format = "", "", tar.FormatPAX
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil { //nolint:gosec // as large as the old container's
			return err
		}
	}
}

// explain adds to an error what can be done.
func (r *restart) explain(err error) error {
	if errdefs.IsAlreadyExists(err) {
		return Errorf(KindName, "another restart of bottle %s is under way, or was killed: bottle restart --force %s removes what it left (%w)", r.name, r.name, err)
	}
	return err
}

// undoNew removes the new container.
func (r *restart) undoNew(ctx, teardown context.Context) error {
	bounded, cancel := clearing(ctx, teardown)
	defer cancel()
	return r.undo.Run(bounded, r.report.forTeardown())
}

// clearing is the context for clearing up, which the caller may have given.
func clearing(ctx, given context.Context) (context.Context, context.CancelFunc) {
	if given != nil {
		return context.WithCancel(given)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), teardownTime)
}

// replace removes the old container, and makes the new one the bottle's.
func (r *restart) replace(ctx, teardown context.Context) error {
	step := graph.Step{Name: stepReplace, Object: r.old.Name}
	r.report.Begin(step)
	begun := time.Now()
	// From here on an interruption would leave two.
	bounded, cancel := clearing(ctx, teardown)
	defer cancel()
	err := r.rt.RemoveContainer(bounded, r.old.ID)
	r.report.End(step, time.Since(begun), err)
	if err != nil {
		looking, stop := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
		defer stop()
		still, looked := r.rt.InspectContainer(looking, r.old.ID)
		if looked == nil && still.State == runtime.StateRunning {
			return &LaunchError{Err: launchKind(ctx, fmt.Errorf("the old container stays in use: %w", err)), Teardown: withKind(KindLeftover, r.undoNew(ctx, teardown))}
		}
		err = Errorf(KindLeftover, "bottle %s runs in its new container, and the old one, %s, could not be removed: %w", r.name, r.old.Name, err)
	}
	r.bottle.mu.Lock()
	r.bottle.container, r.bottle.user = r.container.ID, r.userSpec()
	r.bottle.mu.Unlock()
	if r.renewed != nil {
		told := r.bottle.putConfig(bounded, RoleSupervise, r.renewed, nil)
		if told == nil {
			told = r.bottle.tellAgent(bounded, r.renewed)
		}
		if told != nil {
			r.report.note(stepReplace, fmt.Sprintf("the agent is not told of the changed Dockerfile: %v", told))
		}
	}
	return err
}

// Follow finds out whether another process has restarted the bottle: then it is about the
// new container from here on.
func (b *Bottle) Follow(ctx context.Context) (restarted bool, err error) {
	b.mu.Lock()
	launch := b.launch
	b.mu.Unlock()
	if launch == "" {
		return false, nil
	}
	list, err := agentsOf(ctx, b.rt, launch)
	if err != nil {
		return false, err
	}
	own := b.agent()
	list = slices.DeleteFunc(list, func(c runtime.Container) bool { return c.ID == own || c.State != runtime.StateRunning })
	if len(list) == 0 {
		return false, nil
	}
	// The old container may be about to end, or be there to stay: then the other one is a
	// restart's that has not come to its end.
	looking, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if _, err := b.rt.Wait(looking, own); err != nil && !errdefs.IsNotFound(err) {
		return false, ctx.Err()
	}
	now := list[0]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.container, b.user = now.ID, now.Labels[LabelUser]
	return true, nil
}

// currentAgents are the agents' containers by launch. While a bottle is restarted it has
// two, of which the one that was there first is in use.
func currentAgents(containers []runtime.Container) map[string]runtime.Container {
	current := map[string]runtime.Container{}
	for _, c := range containers { // oldest first
		id := c.Labels[LabelLaunch]
		if id == "" || c.Labels[LabelRole] != RoleAgent {
			continue
		}
		if was, ok := current[id]; !ok || was.State != runtime.StateRunning && c.State == runtime.StateRunning {
			current[id] = c
		}
	}
	return current
}

func agentsOf(ctx context.Context, rt runtime.Runtime, launch string) ([]runtime.Container, error) {
	return rt.ListContainers(ctx, runtime.Filter{Labels: map[string]string{LabelLaunch: launch, LabelRole: RoleAgent}})
}

// removeAgents removes the agent's container, by whichever ID it has by now.
func removeAgents(ctx context.Context, rt runtime.Runtime, launch, id string) error {
	err := rt.RemoveContainer(ctx, id)
	list, listed := agentsOf(ctx, rt, launch)
	var errs *multierror.Error
	if err != nil {
		errs = multierror.Append(errs, err)
	}
	if listed != nil {
		errs = multierror.Append(errs, listed)
	}
	for _, c := range list {
		if c.ID == id {
			continue
		}
		if err := rt.RemoveContainer(ctx, c.ID); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	return errs.ErrorOrNil()
}
