// Package e2e tests the firewall and the egress proxy as they are, on loopback, against
// servers and a DNS server of its own. What gets past them is looked for where it
// would arrive.
package e2e
