// Package lab is the laboratory of probed's tests: hosts that are network
// namespaces, joined by veth pairs or by a link that impairs what crosses it,
// captures beside the code under test, and peers that are real kernels or that
// answer as a script says.
//
// A lab needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), /dev/net/tun and Debian's
// iproute2, nftables and tcpdump. What is missing ends the test with the package's
// name; nothing here skips.
//
// Nothing outlives the test, even a killed one: namespaces have no name and
// live by file descriptors of the test process, veth pairs and TUN devices die
// with their namespaces, and programs started in a host carry a parent-death
// signal. Labs share nothing, so tests that use them may run in parallel.
//
// # Addresses
//
// The nth joint of a lab, counted from 0, has 198.18.n.0/24 and
// 2001:db8:0:n::/64: .1 and ::1 on its A end, .2 and ::2 on its B end, and .254
// and ::fe for the router that an impairment link stands for. Everything from
// 198.18.64.0 and 2001:db8:1:: on is free for AnyIP and scripted peers. There
// is no default route.
//
// # Alternatives considered
//
// Devices, addresses and routes are made through rtnetlink inside the process:
// two joined hosts take 5 to 9 ms, where starting any program in a host takes 1.5
// and ip(8) would be started ten times; errors name the operation. Named namespaces (ip netns) were turned down
// because they survive a killed test. A capture is a tcpdump of its own, not
// our tap: the yardstick shares no code with what it measures.
package lab
