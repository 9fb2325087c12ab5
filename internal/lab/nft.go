package lab

import (
	"context"
	"fmt"
	"strings"
)

// NFT loads an nftables ruleset into the host (nft -f).
func (h *Host) NFT(ruleset string) {
	h.lab.tb.Helper()
	tool(h.lab.tb, "nft", "nftables")
	cmd := h.Command(context.Background(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.lab.tb.Fatalf("lab: host %s: nft: %v\n%s%s", h.Name, err, out, ruleset)
	}
}

// A Refusal is what a firewall answers to a segment it does not let in.
type Refusal string

// The refusals, as nftables statements; each is for IPv4 and IPv6 alike but
// HostProhibited and NetProhibited, which ICMPv6 does not have (IPv6 gets
// administratively prohibited).
const (
	Drop            Refusal = "drop"
	TCPReset        Refusal = "reject with tcp reset"
	PortUnreachable Refusal = "reject with icmpx type port-unreachable"
	HostUnreachable Refusal = "reject with icmpx type host-unreachable" // ICMPv6: address unreachable
	NoRoute         Refusal = "reject with icmpx type no-route"         // ICMP: net unreachable
	AdminProhibited Refusal = "reject with icmpx type admin-prohibited"
	HostProhibited  Refusal = "reject with icmp type host-prohibited"
	NetProhibited   Refusal = "reject with icmp type net-prohibited"
)

// Refuse adds a firewall rule for TCP segments that arrive for a port.
//
// The kernel sends a destination one ICMP error a second, IPv4 (icmp_ratelimit)
// and IPv6 alike, as real peers do: AllICMP lifts that. Over veth an ICMP error
// can be back while connect(2) still holds its socket: the client's kernel then
// ignores it (TcpExtLockDroppedIcmps) and believes the one that answers its
// retransmission a second later.
func (h *Host) Refuse(port uint16, how Refusal) {
	h.lab.tb.Helper()
	rules := fmt.Sprintf("add rule inet lab input tcp dport %d %s\n", port, how)
	if how == HostProhibited || how == NetProhibited {
		rules = fmt.Sprintf("add rule inet lab input meta nfproto ipv4 tcp dport %d %s\n"+
			"add rule inet lab input meta nfproto ipv6 tcp dport %[1]d %[3]s\n", port, how, AdminProhibited)
	}
	h.NFT("add table inet lab\n" +
		"add chain inet lab input { type filter hook input priority 0; }\n" + rules)
}

// AllICMP lifts the host's limits on the ICMP errors that it sends.
func (h *Host) AllICMP() {
	h.lab.tb.Helper()
	h.Sysctl("net.ipv4.icmp_ratelimit", "0")
	h.Sysctl("net.ipv4.icmp_msgs_per_sec", "1000000")
	h.Sysctl("net.ipv4.icmp_msgs_burst", "1000000")
	h.Sysctl("net.ipv6.icmp.ratelimit", "0")
}
