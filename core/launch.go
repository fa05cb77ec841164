package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/core/trust"
	"github.com/bottle-run/bottle/core/workspace"
	"github.com/bottle-run/bottle/runtime"
)

// The steps of a launch. Their names appear in progress and in errors.
const (
	stepEngine = "check engine"
	stepImage  = "prepare image"
	stepScan   = "read files"
	stepClaim  = "create internal network"
	stepEgress = "create egress network"

	stepCertificates   = "make certificates"
	stepSidecarProgram = "read sidecar program"
	stepSidecarImage   = "prepare sidecar image"
	stepFirewall       = "start firewall"
	stepEgressProxy    = "start egress proxy"
	stepGitGate        = "start git gate"
	stepSupervise      = "start supervise"

	stepRecall    = "recall image"
	stepAgent     = "run agent container"
	stepUser      = "find the agent's user"
	stepVariables = "pass variables"
	stepProvision = "put files in"
	stepPolicy    = "tell the agent its policy"
	stepRegister  = "register supervise"
)

// teardownTime bounds clearing up when the caller sets no bound of its own.
const teardownTime = 2 * time.Minute

// LaunchOptions go with a plan.
type LaunchOptions struct {
	// Secrets are the values of the plan's secret variables.
	Secrets Secrets
	// Observer is told about progress; it may be nil.
	Observer Observer
	// SidecarImage makes the image of the built-in sidecars; nil means that of the
	// program that lies beside the running one.
	SidecarImage SidecarImage
	// Images keeps what launches learn of images; without it each asks the engine anew.
	Images *imagecache.Cache
	// Recorder keeps a record of the launch; without one there is none, and what a killed
	// process leaves can only be found by its labels.
	Recorder Recorder
	// Owner is this process, as the labels are to tell it; the zero value tells nothing.
	Owner session.Process
	// Detach says that the bottle is going to be detached, on its labels.
	Detach bool
	// Teardown is the context for clearing up after a launch that fails. Without
	// one it is ctx without its end, bounded to two minutes.
	Teardown context.Context
}

// Launch brings a bottle up: image, networks, container, files, variables. The
// error is a *LaunchError, and then nothing is left but images and what the error
// says.
func Launch(ctx context.Context, rt runtime.Runtime, plan Plan, opts LaunchOptions) (*Bottle, error) {
	r := newReporter(opts.Observer)
	dockerfile, err := readDockerfile(plan.Image)
	if err != nil {
		return nil, &LaunchError{Err: err}
	}
	for next := 0; next < maxCandidates; next++ {
		l := &launch{rt: rt, plan: plan, opts: opts, report: r, next: next, named: make(chan struct{}), id: newID(), egress: newWayOut(plan, opts.Secrets), dockerfile: dockerfile}
		if opts.Recorder != nil {
			l.recording = newRecording()
			l.rt = intentFirst{rt, l.recording}
		}
		err := l.attempt(ctx)
		if err == nil {
			if err := l.recording.running(); err != nil {
				r.note(stepRecord, fmt.Sprintf("the record still says that the bottle is being launched: %v", err))
			}
			if err := l.known.Save(); err != nil {
				r.note(stepRecall, fmt.Sprintf("what the image holds is not kept for the next launch: %v", err))
			}
			return l.bottle(), nil
		}
		teardown := l.teardown(ctx)
		if teardown == nil && !plan.Name.Pinned && errdefs.IsAlreadyExists(err) && l.name != "" && ctx.Err() == nil {
			// The networks' names were free and the container's is not: something
			// that is no bottle has it. The next name is tried.
			next = l.next
			r.note(stepAgent, fmt.Sprintf("the name %s is taken by something else", containerName(l.name)))
			continue
		}
		return nil, &LaunchError{Err: launchKind(ctx, err), Teardown: teardown}
	}
	return nil, &LaunchError{Err: Errorf(KindName, "every name from %s to %s is taken: name one with --name, or remove bottles", plan.Name.Base, candidate(plan.Name.Base, maxCandidates-1))}
}

const (
	// heartbeat is how often a launch looks whether the engine still answers.
	heartbeat = 5 * time.Second
	// heartbeatPatience is how long an answer may take: an engine that is busy with this
	// very launch is slow.
	heartbeatPatience = 30 * time.Second
)

// attempt runs the steps, for as long as the engine answers: a call to one that hangs would
// have no end.
func (l *launch) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		if err := graph.Guard(func() error { return l.watch(ctx, heartbeat) }); err != nil {
			cancel(err)
		}
	})
	return graph.Run(ctx, l.steps(), l.report)
}

// watch asks the engine again and again whether it is there, until ctx ends or it has not
// answered in time. That it refuses to say is no error: a step that needs it is told the same.
func (l *launch) watch(ctx context.Context, every time.Duration) error {
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		asked, end := context.WithTimeout(ctx, heartbeatPatience)
		_, err := l.rt.Info(asked)
		late := asked.Err() != nil && ctx.Err() == nil
		end()
		if late {
			return Errorf(KindEngine, "the engine has not answered for %v: %w", heartbeatPatience, err)
		}
	}
}

// Hurry gives a context for clearing up a channel that is closed when the user is in a
// hurry: what cannot be removed then is not tried again, and stays for the watchdog.
func Hurry(ctx context.Context, hurry <-chan struct{}) context.Context {
	return graph.WithHurry(ctx, hurry)
}

// launchKind sorts the error of a launch.
func launchKind(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return withKind(KindInterrupted, err)
	case errdefs.IsAlreadyExists(err):
		return withKind(KindName, err)
	case errdefs.IsUnavailable(err):
		return withKind(KindEngine, err)
	case errdefs.IsNotImplemented(err):
		return withKind(KindUnsupported, err)
	}
	return withKind(KindLaunch, err)
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// launch is one attempt. Each field is written by one step, and read by steps
// that need it.
type launch struct {
	rt     runtime.Runtime
	plan   Plan
	opts   LaunchOptions
	report reporter
	undo   graph.Undo
	id     string
	next   int           // the candidate to try
	named  chan struct{} // closed by stepClaim when name is known
	// recording is nil without a recorder, and otherwise set by stepRecord.
	recording *recording

	name      string          // by stepClaim
	network   runtime.Network // by stepClaim
	info      runtime.Info    // by stepEngine
	image     runtime.Image   // by stepImage
	tree      *workspace.Tree // by stepScan
	trees     map[string]*workspace.Tree
	container runtime.Container // by stepAgent
	run       []string          // by stepAgent: the agent's command
	secretEnv map[string]string // by stepAgent: secret variables with what trust adds
	user      account           // by stepUser, or stepRecall
	copied    copied            // by stepAgent

	known    *imagecache.Entry // by stepRecall; nil without a cache
	recalled bool              // by stepRecall: all that it looks for is known
	store    *trust.Store      // by stepRecall, if it is recalled
	handed   bool              // by stepAgent: its process has its variables
	// registered is by stepProvision: where the supervise server is registered, by program;
	// empty if it cannot be.
	registered map[string]string

	dockerfile string // the text that the image is built from

	kept *kept // of a bottle that is restarted; nil in a launch

	egressNetwork runtime.Network   // by stepEgress
	egress        *wayOut           // nil without a way out
	pair          *ca.Pair          // by stepCertificates
	likely        *madeImage        // by stepSidecarProgram
	sidecarImages map[string]string // by stepSidecarImage: references by role
	firewall      runtime.Container // by stepFirewall
	egressProxy   runtime.Container // by stepEgressProxy
	gitGate       runtime.Container // by stepGitGate
	superviseBox  runtime.Container // by stepSupervise
}

func (l *launch) steps() []graph.Step {
	imageName := l.plan.Image.Reference
	if l.plan.Image.Build != nil {
		imageName = l.plan.Image.Build.Dockerfile
	}
	sidecars := l.sidecarSteps()
	var first []string
	if l.asksEngine() {
		// What it cannot do is refused before anything is made.
		first = []string{stepEngine}
	}
	// The agent's container idles, and is filled, while the sidecars come up. The agent is
	// started last of all, when the launch is done and every sidecar is ready.
	agent := []string{stepEngine, stepImage, stepClaim}
	if l.egress != nil {
		agent = append(agent, stepCertificates)
	}
	if l.opts.Images != nil {
		agent = append(agent, stepRecall)
	}
	steps := []graph.Step{
		{Name: stepEngine, Run: l.checkEngine},
		{Name: stepImage, Object: imageName, Run: l.prepareImage},
		{Name: stepClaim, Object: l.plan.Name.Base, Needs: first, Run: l.claim},
		{Name: stepEgress, Object: l.plan.Name.Base, Needs: first, Run: l.createEgress(candidate(l.plan.Name.Base, l.next))},
		{Name: stepAgent, Object: l.plan.Agent, Needs: agent, Run: l.runAgent},
		{Name: stepUser, Object: l.plan.User, Needs: []string{stepAgent}, Run: l.findUser},
		{Name: stepVariables, Needs: []string{stepUser}, Run: l.passVariables},
	}
	steps = append(steps, sidecars...)
	if l.recording != nil {
		steps = append(steps, graph.Step{Name: stepRecord, Object: l.plan.Name.Base, Needs: []string{stepEngine}, Run: l.record})
	}
	// What is not asked for is no step, and nothing waits for it.
	if l.opts.Images != nil {
		steps = append(steps, graph.Step{Name: stepRecall, Needs: []string{stepEngine, stepImage}, Run: l.recall})
	}
	filled := []string{stepUser}
	if l.egress != nil {
		steps = append(steps, graph.Step{Name: stepTrust, Needs: []string{stepAgent}, Run: l.installTrust})
		if l.opts.Images != nil {
			// What is learnt of the image is to be the image's, and no file of the manifest's.
			filled = append(filled, stepTrust)
		}
	}
	if l.plan.Workspace.Source != "" || slices.ContainsFunc(l.plan.Files, func(f File) bool { return f.Tree }) {
		steps = append(steps, graph.Step{Name: stepScan, Object: l.plan.Workspace.Source, Run: l.scan})
		filled = append(filled, stepScan)
	}
	if l.plan.Workspace.Source != "" || len(l.plan.Files) > 0 {
		steps = append(steps, graph.Step{Name: stepProvision, Object: l.plan.Workspace.Source, Needs: filled, Run: l.provision})
		filled = append(slices.Clone(filled), stepProvision)
	}
	if s := l.plan.Supervise; s != nil {
		if l.plan.ReadOnly {
			steps = append(steps, graph.Step{Name: stepPolicy, Needs: []string{stepAgent}, Run: l.sharePolicy})
		}
		if len(s.MCP) > 0 {
			// What it adds to has been put there.
			steps = append(steps, graph.Step{Name: stepRegister, Needs: filled, Run: l.registerSupervise})
		}
	}
	return steps
}

// labels are those of an object of this launch.
func (l *launch) labels(role string) map[string]string { return l.labelsOf(l.name, role) }

// labelsOf are labels for when the bottle's name may turn out to be another.
func (l *launch) labelsOf(name, role string) map[string]string {
	labels := map[string]string{LabelBottle: name, LabelAgent: l.plan.Agent, LabelLaunch: l.id, LabelRole: role}
	if owner := ownerLabel(l.opts.Owner); owner != "" {
		labels[LabelOwner] = owner
	}
	if l.opts.Detach {
		labels[LabelDetached] = "true"
	}
	return labels
}

// asksEngine reports whether the plan asks for what an engine may not have.
func (l *launch) asksEngine() bool {
	limits := l.plan.Limits
	return limits.Memory > 0 || limits.PIDs > 0 || limits.CPUs > 0 || l.plan.OCIRuntime != ""
}

// checkEngine refuses what the engine cannot do before anything is made.
func (l *launch) checkEngine(ctx context.Context) error {
	ask := l.rt.Brief
	if l.plan.OCIRuntime != "" {
		ask = l.rt.Info // which knows those
	}
	info, err := ask(ctx)
	if err != nil {
		return err
	}
	l.info = info
	limits := l.plan.Limits
	for _, need := range []struct {
		asked   bool
		feature runtime.Feature
		key     string
	}{
		{limits.Memory > 0, runtime.FeatureMemoryLimit, "limits.memory"},
		{limits.PIDs > 0, runtime.FeaturePIDsLimit, "limits.pids"},
		{limits.CPUs > 0, runtime.FeatureCPULimit, "limits.cpus"},
	} {
		if need.asked && !info.Has(need.feature) {
			return Errorf(KindUnsupported, "bottle %q asks for %s, and %s has no %s: %s", l.plan.Bottle, need.key, info.Engine, need.feature.Doc(), info.Missing[need.feature])
		}
	}
	if want := l.plan.OCIRuntime; want != "" && !slices.Contains(info.OCIRuntimes, want) {
		return Errorf(KindUnsupported, "bottle %q asks for oci_runtime %s, and %s has %s", l.plan.Bottle, want, info.Engine, strings.Join(info.OCIRuntimes, ", "))
	}
	l.report.result(stepEngine, strings.TrimSpace(info.Engine+" "+info.Version))
	return nil
}

func (l *launch) prepareImage(ctx context.Context) (err error) {
	l.image, err = ensureImage(ctx, l.rt, l.plan.Image, l.report, stepImage)
	return err
}

func (l *launch) scan(ctx context.Context) (err error) {
	if ws := l.plan.Workspace; ws.Source != "" {
		l.tree, err = workspace.Scan(ctx, ws.Source, workspace.Options{Ignore: ws.Ignore, NoGitIgnore: !ws.GitIgnore})
		if err != nil {
			return withKind(KindInput, err)
		}
		for _, note := range l.tree.Notes {
			l.report.note(stepScan, note)
		}
	}
	l.trees = map[string]*workspace.Tree{}
	for _, f := range l.plan.Files {
		if !f.Tree {
			continue
		}
		l.trees[f.Source], err = workspace.Scan(ctx, f.Source, workspace.Options{NoGitIgnore: true})
		if err != nil {
			return withKind(KindInput, err)
		}
	}
	return l.refuseKeys()
}

// claim takes a name by making the network that bears it: of several launches
// that want one name, the engine lets exactly one have it.
func (l *launch) claim(ctx context.Context) error {
	for ; l.next < maxCandidates; l.next++ {
		name := candidate(l.plan.Name.Base, l.next)
		network, err := l.createNetwork(ctx, name, internalNetworkName(name), RoleInternal)
		if err == nil {
			l.name, l.network = name, network
			close(l.named)
			l.claimed()
			l.report.result(stepClaim, fmt.Sprintf("%s, %s", network.Name, network.Subnet))
			return nil
		}
		if !errdefs.IsAlreadyExists(err) {
			return err
		}
		if l.plan.Name.Pinned {
			return Errorf(KindName, "there is a bottle named %s already: choose another name, or end it with bottle rm %s (%w)", name, name, err)
		}
	}
	return Errorf(KindName, "every name from %s to %s is taken: name one with --name, or remove bottles", l.plan.Name.Base, candidate(l.plan.Name.Base, maxCandidates-1))
}

// createEgress makes the egress network beside the internal one, whose name is the claim:
// for the name that the bottle will most likely have, and anew if it gets another.
func (l *launch) createEgress(likely string) func(context.Context) error {
	return func(ctx context.Context) error {
		network, err := l.createNetwork(ctx, likely, egressNetworkName(likely), RoleEgress)
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return err
		}
		select {
		case <-l.named:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if l.name != likely {
			if err == nil {
				err = l.rt.RemoveNetwork(ctx, network.ID)
			}
			if err != nil && !errdefs.IsAlreadyExists(err) {
				return err
			}
			network, err = l.createNetwork(ctx, l.name, egressNetworkName(l.name), RoleEgress)
		}
		if errdefs.IsAlreadyExists(err) {
			network, err = l.outwaitRival(ctx, err)
		}
		if err != nil {
			return err
		}
		l.egressNetwork = network
		l.report.result(stepEgress, fmt.Sprintf("%s, %s", network.Name, network.Subnet))
		return nil
	}
}

// rivalTime bounds waiting for a launch to let go of what it took for a name that it did not
// get: its undoing takes a second or two, on a busy machine several.
const rivalTime = 20 * time.Second

// outwaitRival makes the egress network of a name that this launch has claimed, when another
// launch, which wanted the name too, has been sooner with the egress network: it lets go
// of that. What is no launch's is not waited for.
func (l *launch) outwaitRival(ctx context.Context, taken error) (runtime.Network, error) {
	name := egressNetworkName(l.name)
	for end := time.Now().Add(rivalTime); time.Now().Before(end); {
		held, err := l.rt.InspectNetwork(ctx, name)
		switch {
		case errdefs.IsNotFound(err):
			network, err := l.createNetwork(ctx, l.name, name, RoleEgress)
			if !errdefs.IsAlreadyExists(err) {
				return network, err
			}
		case err != nil:
			return held, err
		case held.Labels[LabelLaunch] == "":
			return held, taken
		}
		select {
		case <-ctx.Done():
			return held, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return runtime.Network{}, taken
}

func (l *launch) createNetwork(ctx context.Context, bottle, name, role string) (runtime.Network, error) {
	network, err := l.rt.CreateNetwork(ctx, runtime.NetworkSpec{Name: name, Internal: role == RoleInternal, Labels: l.labelsOf(bottle, role)})
	if err != nil {
		return network, err
	}
	l.undo.PushLast("remove "+role+" network", name, func(ctx context.Context) error { return l.rt.RemoveNetwork(ctx, network.ID) })
	return network, nil
}

func (l *launch) runAgent(ctx context.Context) error {
	arch := l.image.Config.Architecture
	if arch == "" {
		arch = l.info.Arch
	}
	program, err := inside.Program(arch)
	if err != nil {
		return err
	}
	if l.run, err = l.command(); err != nil {
		return err
	}
	encoded, err := json.Marshal(l.run)
	if err != nil {
		return err
	}
	labels := l.labels(RoleAgent)
	labels[LabelCommand], labels[LabelUser] = string(encoded), l.userSpec()
	if roles := l.roles(); len(roles) > 0 {
		labels[LabelSidecars] = strings.Join(roles, ",")
	}
	name := containerName(l.name)
	if l.kept != nil {
		name = l.kept.name
		for k, v := range l.kept.labels {
			if _, ok := labels[k]; !ok {
				labels[k] = v
			}
		}
	} else if err := errors.Join(l.labelWorkspace(labels), l.noteRestart(labels)); err != nil {
		return err
	}
	files, err := l.agentFiles(program)
	if err != nil {
		return err
	}
	env, err := l.agentEnv()
	if err != nil {
		return err
	}
	tmpfs := []runtime.Tmpfs{{Target: inside.Tmpfs, Size: inside.TmpfsSize}}
	if l.plan.Supervise != nil && l.plan.ReadOnly {
		tmpfs = append(tmpfs, runtime.Tmpfs{Target: policyDir, Size: policySize})
	}
	for _, t := range l.plan.Tmpfs {
		tmpfs = append(tmpfs, runtime.Tmpfs{Target: t.Target, Size: t.Size})
	}
	spec := runtime.ContainerSpec{
		Name: name, Hostname: l.name, Image: imageRef(l.image, l.plan.Image), Entrypoint: inside.Idle(),
		Env: env, User: l.plan.User, WorkDir: l.plan.WorkDir, Labels: labels,
		Networks: []runtime.NetworkAttachment{{Network: l.network.ID, Aliases: []string{RoleAgent}}},
		Files:    files,
		Tmpfs:    tmpfs, Limits: l.plan.Limits.runtime(), OCIRuntime: l.plan.OCIRuntime, ReadOnly: l.plan.ReadOnly,
		AutoRemove: true,
	}
	// Not every OCI runtime lets a process be spoken to.
	if l.recalled && l.plan.OCIRuntime == "" {
		bounded, cancel, err := l.handVariables(ctx, &spec)
		if err != nil {
			return err
		}
		defer cancel(nil)
		ctx = bounded
	}
	if l.container, err = l.rt.Run(ctx, spec); err != nil {
		return err
	}
	id := l.container.ID
	l.undo.Push("remove agent container", name, func(ctx context.Context) error {
		if l.kept != nil {
			return l.rt.RemoveContainer(ctx, id)
		}
		return removeAgents(ctx, l.rt, l.id, id)
	})
	l.report.result(stepAgent, name)
	return nil
}

// agentFiles are in the agent's container before it starts; program is its main process.
func (l *launch) agentFiles(program []byte) ([]runtime.File, error) {
	files, err := l.trustFiles()
	if err != nil {
		return nil, err
	}
	if l.recalled && l.egress != nil && !l.plan.ReadOnly {
		writes, err := l.trustWrites(l.store)
		if err != nil {
			return nil, err
		}
		for _, w := range writes {
			files = append(files, runtime.File{Path: w.Path, Mode: uint32(w.Mode) & 0o777, UID: w.UID, GID: w.GID, Content: w.Content})
		}
	}
	policy, err := l.policyFiles()
	if err != nil {
		return nil, err
	}
	return append(append(files, policy...), runtime.File{Path: inside.Path, Mode: 0o755, Content: program}), nil
}

// imageRef is what the engine knows the image by: its ID stays the same if a tag
// moves meanwhile.
func imageRef(got runtime.Image, plan Image) string {
	switch {
	case got.ID != "":
		return got.ID
	case len(got.Tags) > 0:
		return got.Tags[0]
	}
	return plan.Reference
}

// command is what the agent runs.
func (l *launch) command() ([]string, error) {
	if len(l.plan.Command) > 0 {
		return l.plan.Command, nil
	}
	command := slices.Concat(l.image.Config.Entrypoint, l.image.Config.Cmd)
	if len(command) == 0 {
		return nil, Errorf(KindInput, "neither agent %q nor its image has a command: give one in the manifest, or after --", l.plan.Agent)
	}
	return command, nil
}

func (l *launch) userSpec() string { return orDefault(l.plan.User, l.image.Config.User) }

func (l *launch) findUser(ctx context.Context) (err error) {
	if !l.recalled {
		if l.user, err = l.agentUser(ctx, l.view().open); err != nil {
			return err
		}
	}
	l.report.result(stepUser, fmt.Sprintf("%d:%d, home %s", l.user.UID, l.user.GID, l.user.Home))
	return nil
}

// agentUser looks the agent's user up in an image.
func (l *launch) agentUser(ctx context.Context, open opener) (account, error) {
	user, err := resolveUser(ctx, open, l.userSpec())
	// The home directory that the environment names is the one that counts.
	for _, env := range []string{imageEnv(l.image.Config.Env, "HOME"), l.plan.Env["HOME"], l.opts.Secrets.values["HOME"]} {
		if path.IsAbs(env) {
			user.Home = path.Clean(env)
		}
	}
	return user, err
}

func imageEnv(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// handVariables has the container's main process keep the variables when it starts. Run is to
// be called with the context.
func (l *launch) handVariables(ctx context.Context, spec *runtime.ContainerSpec) (context.Context, context.CancelCauseFunc, error) {
	env, err := l.variables()
	if err != nil {
		return nil, nil, err
	}
	encoded, err := encodeEnv(env)
	if err != nil {
		return nil, nil, err
	}
	spec.Entrypoint = inside.IdleWith(inside.EnvFile)
	shake, bounded, cancel := handshake(ctx, encoded, func(line []byte) (bool, error) {
		if string(line) != inside.Ready {
			return false, fmt.Errorf("the variables could not be passed into the container: %s", escaped(string(line)))
		}
		return true, nil
	})
	spec.Handshake, l.handed = shake, true
	return bounded, cancel, nil
}

// passVariables gives the agent's processes their variables, if the main process has not
// been handed them.
func (l *launch) passVariables(ctx context.Context) error {
	if l.handed {
		return nil
	}
	env, err := l.variables()
	if err != nil {
		return err
	}
	return putEnv(ctx, l.rt, l.container.ID, inside.EnvFile, env)
}

// variables are the secret ones, and those that depend on the agent's user.
func (l *launch) variables() (map[string]string, error) {
	env := map[string]string{"HOME": l.user.Home}
	if l.user.Name != "" && imageEnv(l.image.Config.Env, "USER") == "" && l.plan.Env["USER"] == "" {
		env["USER"] = l.user.Name
	}
	for _, f := range l.plan.Files {
		if f.What == "prompt" {
			env[PromptVariable] = expandHome(f.Target, l.user.Home)
		}
	}
	for name, value := range l.opts.Secrets.values {
		env[name] = value
	}
	for name := range l.plan.Secrets {
		if _, ok := env[name]; !ok {
			return nil, Errorf(KindInput, "there is no value for the variable %s", name)
		}
	}
	maps.Copy(env, l.secretEnv)
	// Whatever is forwarded: the agent has no other proxy.
	for name, value := range l.proxyEnv() {
		if _, ok := env[name]; ok {
			env[name] = value
		}
	}
	return env, nil
}

func (l *launch) bottle() *Bottle {
	return &Bottle{
		Name: l.name, Agent: l.plan.Agent, Network: l.network, Command: l.run, rt: l.rt, container: l.container.ID, launch: l.id,
		user: l.userSpec(), copied: l.copied, undo: &l.undo, report: l.report, recording: l.recording, launched: l.launchedSidecars(),
	}
}

// teardown undoes what the launch has done, and then looks for what an engine
// made although it said that it failed.
func (l *launch) teardown(ctx context.Context) error {
	end := l.opts.Teardown
	if end == nil {
		var cancel context.CancelFunc
		end, cancel = context.WithTimeout(context.WithoutCancel(ctx), teardownTime)
		defer cancel()
	}
	r := l.report.forTeardown()
	undone := l.undo.Run(end, r)
	err := leftovers(undone, sweep(end, l.rt, l.id, r))
	return join(err, l.recording.end(err != nil))
}
