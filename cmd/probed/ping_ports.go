package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/rawsock"
)

const (
	// firstPingPort is above those that the daemon takes by default.
	firstPingPort = 61256
	lastPingPort  = 65535
	// usualPorts is how many source ports are used in turn: at a probe a second
	// peers see none twice within two minutes.
	usualPorts = 128
)

// pingPorts are the source ports of a pinger. It is of one kind, and has one port
// of the other half, which the self-test wants.
type pingPorts struct{ reserved, guarded engine.Ports }

func portsOf(r config.PortRange, k probe.Kind) pingPorts {
	if k == probe.HalfOpen {
		return pingPorts{engine.Ports{First: r.First, Last: r.Last - 1}, engine.Ports{First: r.Last, Last: r.Last}}
	}
	return pingPorts{engine.Ports{First: r.First, Last: r.First}, engine.Ports{First: r.First + 1, Last: r.Last}}
}

// openPorts opens the network on a range of source ports, or, if that is the zero
// range, on the first one with need ports for the kind that is free, beginning
// anywhere: a run after the other has other ports.
func openPorts(r config.PortRange, need int, k probe.Kind, anywhere func(n int) int) (*host.Network, pingPorts, error) {
	if r != (config.PortRange{}) {
		p := portsOf(r, k)
		n, err := p.open()
		return n, p, err
	}
	size := need + 1
	blocks := (lastPingPort - firstPingPort + 1) / size
	for i, start := 0, anywhere(blocks); i < blocks; i++ {
		first := firstPingPort + (start+i)%blocks*size
		p := portsOf(config.PortRange{First: uint16(first), Last: uint16(first + size - 1)}, k)
		n, err := p.tryOpen(uint16(first), uint16(first+size-1))
		if !errors.Is(err, unix.EADDRINUSE) {
			return n, p, err
		}
	}
	return nil, pingPorts{}, fmt.Errorf("no %d source ports in a row are free between %d and %d: choose some by --source-ports=FIRST-LAST",
		size, firstPingPort, lastPingPort)
}

// tryOpen opens the network if the ports are free. To learn that they are not is
// cheaper without the tap.
func (p pingPorts) tryOpen(first, last uint16) (*host.Network, error) {
	held, err := rawsock.ReservePorts(first, last)
	if err != nil {
		return nil, err
	}
	if err := held.Close(); err != nil {
		return nil, err
	}
	return p.open()
}

func (p pingPorts) open() (*host.Network, error) {
	return host.Open(host.Ports{Reserved: host.Range(p.reserved), Guarded: host.Range(p.guarded)})
}
