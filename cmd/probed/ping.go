package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/rawsock"
)

// The exit codes of `probed ping`.
const (
	pingAnswered = 0 // every probe was answered, or closed as it should
	pingLost     = 1 // some failed, or none came to a verdict before it was stopped
	pingCannot   = 2 // nothing could be probed
)

// pingDrain bounds how long what is still under way is waited for after Ctrl-C.
const pingDrain = 500 * time.Millisecond

// A pinger is `probed ping`.
type pinger struct {
	pingFlags
	stdout, stderr io.Writer

	conf   config.Target // of the flags
	target ping.Target
	limits engine.Limits
}

// command adds the command to the program.
func (p *pinger) command(app *kingpin.Application) *kingpin.CmdClause {
	cmd := app.Command("ping", "Probe one target again and again and show what becomes of each probe, as it comes. "+
		"Exit code: 0 if all were answered, 1 if some failed, 2 if nothing could be probed.")
	p.define(cmd)
	return cmd
}

// run probes until the probes are made or somebody stops it, and returns the exit
// code. What keeps it from probing is on stderr, a line each.
func (p *pinger) run() int {
	code, err := p.ping()
	if err != nil {
		for _, line := range splitLines(err.Error()) {
			fmt.Fprintf(p.stderr, "probed: ping: %s\n", show.SafeText(line))
		}
		return pingCannot
	}
	return code
}

func (p *pinger) ping() (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second Ctrl-C ends what the first one does not
	if err := p.plan(); err != nil {
		return 0, err
	}
	if err := host.Check(p.device, p.source); err != nil {
		return 0, err
	}
	addr, err := p.address(ctx)
	if err != nil {
		return 0, err
	}
	p.describe(addr)
	network, ports, err := p.open()
	if err != nil {
		return 0, err
	}
	defer network.Close()
	out, err := p.output(ports)
	if err != nil {
		return 0, err
	}
	if _, err := sorted(confined(network)); err != nil {
		fmt.Fprintf(p.stderr, "probed: ping: goes on with more rights than it needs: %s\n", show.SafeText(oneLine(err)))
	}
	tally := new(ping.Tally)
	took := p.probe(ctx, network, ports, out, tally)
	if err := out.end(tally, took); err != nil {
		return 0, err
	}
	return exitCodeOf(tally), nil
}

// address returns the address to probe.
func (p *pinger) address(ctx context.Context) (netip.Addr, error) {
	if p.conf.IP.IsValid() {
		return p.conf.IP, nil
	}
	resolver := targets.Families{Resolver: &net.Resolver{PreferGo: true, StrictErrors: true}}
	addr, err := targets.Lookup(ctx, resolver, &p.conf)
	if err != nil && ctx.Err() != nil {
		return addr, errors.New("stopped before the host name was looked up")
	}
	if err != nil {
		return addr, fmt.Errorf("%s does not resolve: %w", p.conf.Host, err)
	}
	return addr, nil
}

// describe fills in the target as it is shown.
func (p *pinger) describe(addr netip.Addr) {
	m := p.conf.Module
	p.target = ping.Target{
		Remote: netip.AddrPortFrom(addr, p.conf.Port), Kind: m.Probe,
		Interval: m.Interval, Timeout: m.Timeout, Limit: m.Limit, Flows: m.Flows,
	}
	if !p.conf.IP.IsValid() {
		p.target.Name = p.conf.Address
	}
}

// open opens the sockets that probing needs.
func (p *pinger) open() (*host.Network, pingPorts, error) {
	n, ports, err := openPorts(p.sourcePorts, p.ports(), p.conf.Module.Probe, rand.IntN)
	if rawsock.NeedsNetRaw(err) {
		return nil, ports, errors.New("raw sockets need CAP_NET_RAW: run as root, or once: sudo setcap cap_net_raw+ep $(command -v probed)")
	}
	return n, ports, err
}

// probe probes until all probes are made or ctx ends, and returns how long that
// took.
func (p *pinger) probe(ctx context.Context, network *host.Network, ports pingPorts, out *pingOutput, tally *ping.Tally) time.Duration {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out.failed = cancel
	r := &pingRecorder{tally: tally, out: out, left: p.probes(), enough: cancel, flows: p.conf.Module.Flows > 1, interval: p.conf.Interval}
	seed, _ := issSeed() // a ping that ends with the terminal has no folder of its own
	e := targets.Probing(&p.conf, "", p.target.Remote.Addr())
	e.Count, e.Sink, e.Recorder = p.probes(), r, r
	shard := engine.New(engine.Config{
		Network:  network,
		Observer: r,
		Reserved: ports.reserved,
		Guarded:  ports.guarded,
		Limits:   p.limits,
		Seed:     seed,
		Drain:    pingDrain,
	})
	shard.Update([]*engine.Target{&e}, nil)
	giveLoops(1)
	began := time.Now()
	out.begin()
	shard.Run(ctx)
	return time.Since(began)
}

// probes is how many probes are to be made.
func (p *pinger) probes() uint64 {
	if p.count == 0 {
		return math.MaxUint64
	}
	return uint64(p.count)
}

// exitCodeOf returns the exit code of what was seen.
func exitCodeOf(t *ping.Tally) int {
	switch {
	case t.Probes == 0 && t.Lost() > 0:
		return pingCannot
	case t.Probes == 0 || t.Failed() > 0 || t.Lost() > 0:
		return pingLost
	}
	return pingAnswered
}
