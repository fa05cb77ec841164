// Package egress is what may leave a bottle: from the manifest's sections to the
// configurations and secrets of the sidecars.
//
//	manifest sections, host's variables
//	   │ New            everything wrong is reported, each with its place
//	   ▼
//	 Policy             part of the plan; holds no secret
//	   │ FirewallConfig, EgressProxyConfig, …Secrets, with what a launch knows
//	   ▼
//	 what is delivered to the sidecars
//
// What hosts, paths, routes and addresses mean is decided by sidecar/policy and
// sidecar/config, the packages that the sidecars decide with: nothing of it is repeated
// here, and what New accepts a sidecar accepts.
package egress
