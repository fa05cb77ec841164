package core

// The labels on a bottle's objects.
const (
	// LabelBottle is the bottle's name.
	LabelBottle = "dev.bottle.bottle"
	// LabelAgent is the agent's name in the manifest.
	LabelAgent = "dev.bottle.agent"
	// LabelLaunch is different for each launch.
	LabelLaunch = "dev.bottle.launch"
	// LabelRole is what the object is in its bottle: one of the roles below.
	LabelRole = "dev.bottle.role"
	// LabelCommand is the agent's command, as a JSON list.
	LabelCommand = "dev.bottle.command"
	// LabelUser is the user that the agent runs as, as it was specified.
	LabelUser = "dev.bottle.user"
	// LabelSidecars names, on the agent's container, the roles of the bottle's sidecars,
	// with commas in between.
	LabelSidecars = "dev.bottle.sidecars"
	// LabelOwner is the process that made the object, as session.Process writes itself.
	LabelOwner = "dev.bottle.owner"
	// LabelDetached is "true" on what was made for a bottle that outlives that process.
	LabelDetached = "dev.bottle.detached"
	// LabelGeneration counts, on the agent's container, the restarts of the bottle.
	LabelGeneration = "dev.bottle.generation"
	// LabelRestart is, on the agent's container, how many labels of its name, a dot and a
	// number from 0 follow: together they are what a restart needs to know of the launch.
	LabelRestart = "dev.bottle.restart"
	// LabelWorkspace tells where the copy of the user's files is and what it was made of, on the
	// agent's container: a JSON object of source and target.
	LabelWorkspace = "dev.bottle.workspace"
	// LabelSeal is the key of the seal on the record of what was copied, on the agent's
	// container. It protects the record from the agent, who sees no labels, and nothing else.
	LabelSeal = "dev.bottle.seal"
	// LabelContent is the digest of what an image was built from.
	LabelContent = "dev.bottle.content"
	// LabelDockerfile is, on an image that was built of a proposal, the digest of its
	// Dockerfile, and LabelBase of the operator's own one when it was approved.
	LabelDockerfile = "dev.bottle.dockerfile"
	LabelBase       = "dev.bottle.base"
	// LabelSource is the digest of where an image was built from: images with one
	// source follow each other.
	LabelSource = "dev.bottle.source"
)

// The roles of objects.
const (
	RoleAgent       = "agent"
	RoleInternal    = "internal"
	RoleEgress      = "egress"
	RoleImage       = "image"
	RoleFirewall    = "firewall"
	RoleEgressProxy = "egress-proxy"
	RoleGitGate     = "git-gate"
	RoleSupervise   = "supervise"
	// RoleProbe is a container that looks whether a foreign firewall is ready.
	RoleProbe = "probe"
)
