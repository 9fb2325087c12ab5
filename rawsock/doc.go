// Package rawsock is the kernel's edge: it sends TCP segments through raw IP
// sockets, sees them and their answers on a packet-socket tap with the
// kernel's stamps, holds the source ports, and asks the kernel for routes and
// clocks. It knows octets, stamps and addresses, not what TCP means by them.
//
// It needs CAP_NET_RAW and nothing else. Linux only; the kernel's behaviour
// that it rests on is named where it is used.
package rawsock
