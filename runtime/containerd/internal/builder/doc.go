// Package builder builds images on a bare containerd with BuildKit as a library:
// no buildkitd, no docker and no CNI on the machine. It exists on Linux alone and
// takes root, like the containerd engine that uses it.
//
// # Use
//
// [New] only checks its options; the solver is assembled by the first
// [Builder.Build] (some 50 to 100 ms) and taken down again when no build has run for
// [Options.Idle]. [Builder.Close] ends what still runs.
//
//	b, err := builder.New(builder.Options{
//		Address:     "/run/containerd/containerd.sock",
//		Namespace:   "bottle",
//		Root:        "/var/lib/bottle/containerd/builder",
//		Snapshotter: "overlayfs",
//		Network:     network, // see below
//		Log:         log,
//	})
//	defer b.Close()
//	result, err := b.Build(ctx, spec)
//	// result.Names are the image's names as containerd has them now.
//
// Errors have kinds of errdefs, but no engine's name: the engine wraps them. A
// step that failed is a [*StepError]; its text ends with the step's last lines of
// output, so nothing should be added behind it.
//
// Images are found and stored as the engine does: under the full name that
// distribution/reference.ParseDockerRef makes (docker.io/library/x:latest). FROM takes a local image
// if there is one, and asks the registry otherwise. What is built carries
// [runtime.LabelManaged] in its configuration, and also on its containerd record, so that
// records can be filtered by it.
//
// # Network
//
// A step never gets the host's network. Each RUN gets a new network namespace
// with a loopback device, without IPv6 and without forwarding; [Network.Connect], which
// the engine implements with its own bridges and firewall, connects it. Without a
// Network, and with BuildSpec.NoNetwork, the loopback device is all. `RUN
// --network=host` and `--security=insecure` are refused. ADD of a URL is fetched
// through such a namespace too, names being resolved by the nameservers that Connect
// returned; the daemon's usual way, from the host, would let a Dockerfile read the
// host's own services. ADD of a git repository is refused: it would run the host's git.
// Pulling a FROM image is the host's doing.
//
// The namespace given to Connect is a path below /proc that is valid in this process
// and in the OCI runtime, as long as Connection.Close has not returned. No
// file is bound to it: it is gone when the process is.
//
// # What it leaves
//
// A build stores its image under a temporary name and gives it its own at the
// very end, so that one which fails or is cancelled leaves no image. The cache of
// steps remains: snapshots, content and leases in the namespace (the leases
// carry [LabelBuilder]), and BuildKit's databases below Root. It is kept below
// [Options.KeepBytes] and [Options.KeepFor]; [Builder.Prune] empties it. Removing
// Root by hand would strand the leases: call [Builder.Purge]. The other way round,
// what of the cache containerd does not have any more (its data was removed, or leases
// were, by hand) is noticed when the solver starts, and built again.
//
// One process at a time builds in a Root, which a lock file ensures; so one process
// builds in a namespace, if each namespace has one Root. Sharing would corrupt the
// cache: BuildKit drops, when it starts, the temporary leases of whoever else
// builds there. A second process waits, tells so in the progress and can be
// cancelled; the first lets go after its last running build if somebody waits, or after
// Options.Idle.
//
// Standard output and standard error of a step reach the builder by two pipes, so
// lines of one may overtake those of the other by a little.
//
// A process killed amid a build leaves a container, its mounts and a
// temporary image; the next one to build removes them first, and so does
// [Builder.Cleanup].
package builder
