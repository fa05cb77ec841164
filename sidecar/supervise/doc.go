// Package supervise is the sidecar at which an agent asks for more, and an operator answers.
//
// The agent speaks MCP over HTTP to it (see tools.go): it reads its policy, proposes changes,
// waits for the answer, withdraws. The operator speaks through the control socket of the
// sidecar's container, which is not on any network (see operator.go).
//
// # Promises
//
//   - Nothing on the network port decides: whoever reaches it can propose and withdraw, and
//     read what this bottle proposed, no more.
//   - A call that waits may wait for as long as it takes. If its connection is lost, the
//     proposal is not: it has an id, and every call stands alone, so that it makes no
//     difference whether the sidecar was restarted between two.
//   - Connections, the rate and the size of requests, calls that wait, and proposals are
//     bounded.
//   - What the agent wrote is escaped wherever an operator is shown it; only the members of
//     a proposal itself are as they came, in JSON of plain ASCII.
//   - Every proposal, refusal and decision is in the audit log.
//
// It does not apply anything: who approves brings the policy into force between the two
// steps of an approval.
package supervise
