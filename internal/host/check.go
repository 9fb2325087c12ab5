package host

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Check reports an interface or a source address that this host does not have,
// and what it has. An empty name and the zero Addr are fine.
func Check(device string, source netip.Addr) error {
	if device != "" {
		if _, err := net.InterfaceByName(device); err != nil {
			return fmt.Errorf("interface: this host has no %q; it has %s", device, strings.Join(interfaces(), ", "))
		}
	}
	if source.IsValid() {
		have, err := Addresses()
		if err != nil {
			return fmt.Errorf("source_address: %w", err)
		}
		if !slices.Contains(have, source.WithZone("")) {
			return fmt.Errorf("source_address: %v is not an address of this host (see ip address): choose one that is, or leave it out", source)
		}
	}
	return nil
}

func interfaces() []string {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		return []string{"none"}
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	return names
}

// Addresses returns the addresses of this host's interfaces.
func Addresses() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all, nil
}
