package config

import (
	"net/netip"
)

// Mesh says that the job's targets probe one another.
type Mesh struct {
	Peers int // how many others probe each node; 0: the job is no mesh
}

// A meshNode is one host among a job's targets.
type meshNode struct {
	hash uint64
	ip4  bool
	ours bool
}

// checkNode says why a target cannot be a mesh's node, or nothing. An address that
// many hosts have would make each of them that node.
func checkNode(t *Target) string {
	const write = "; write the address that the other nodes reach it by"
	switch {
	case !t.IP.IsValid():
		return t.Address + " is a host name, and it is by their addresses that the nodes of a mesh know themselves; write its IP address, or find it by dns_sd_configs of type A or AAAA"
	case t.IP.IsLoopback():
		return t.Address + " is a loopback address, which every host has, so that it is no node of a mesh" + write
	case t.IP.Is6() && t.IP.IsLinkLocalUnicast():
		return t.Address + " is a link-local address, which a host on another link can have too, so that it is no node of a mesh" + write
	}
	return ""
}

// share returns which of a mesh's targets this host probes, and whether it is one
// of the nodes. A node B is probed by the Peers nodes A ≠ B of its address family
// with the highest score(A, B): so that it is probed by as many whoever comes or
// goes, and who comes or goes moves nothing but its own part.
func (m Mesh) share(ts []Target, own func(netip.Addr) bool) (mine []bool, member bool, nodes int) {
	index := make(map[netip.Addr]int, len(ts))
	var all []meshNode
	of := make([]int, len(ts))
	for i := range ts {
		ip := ts[i].IP
		n, ok := index[ip]
		if !ok {
			n = len(all)
			index[ip] = n
			all = append(all, meshNode{hash: hash(ip.String()), ip4: ip.Is4(), ours: own != nil && own(ip.WithZone(""))})
		}
		of[i] = n
	}
	probed := make([]bool, len(all))
	for a, us := range all {
		if !us.ours {
			continue
		}
		member = true
		for b := range all {
			probed[b] = probed[b] || m.chosen(all, a, b)
		}
	}
	mine = make([]bool, len(ts))
	for i, n := range of {
		mine[i] = probed[n]
	}
	return mine, member, len(all)
}

// chosen reports whether node a probes node b: whether fewer than Peers others
// have a higher score.
func (m Mesh) chosen(all []meshNode, a, b int) bool {
	us, peer := &all[a], &all[b]
	if peer.ours || peer.ip4 != us.ip4 {
		return false
	}
	ours, better := score(us.hash, peer.hash), 0
	for i := range all {
		other := &all[i]
		if i == a || i == b || other.ip4 != us.ip4 || score(other.hash, peer.hash) <= ours {
			continue
		}
		if better++; better == m.Peers {
			return false
		}
	}
	return true
}
