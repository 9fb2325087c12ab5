package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/discovery"
	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/internal/memory"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe/engine"
)

// drainTime bounds how long open conversations are waited for at the end.
const drainTime = time.Second

// A daemon is `probed run`.
type daemon struct {
	configFile  string
	configNamed bool // on the command line
	fromFile    bool // the file has been read
	byPacket    bool // segments may go by packet sockets
	metricsPath string
	options     config.Options
	budget      *memory.Budget
	web         *web.FlagConfig
	hosts       []string // names that web clients call us by; none for any
	callers     *crowd   // web clients' connections
	log         *slog.Logger

	own        []netip.AddrPort // of the web listeners, for the embedded default
	addresses  ownAddrs
	metrics    *metrics.Metrics
	complaints *complaints
	manager    *manager // nil without one
	shards     *engine.Group
	roster     *targets.Roster
	discovery  *discovery.Runner
	ready      atomic.Bool
	pulse      pulse
	unconfined error // what could not be given up

	reloads sync.Mutex // one at a time, from the file's reading on, which may take long; before mu

	mu        sync.Mutex // one change of the targets at a time
	config    *config.Config
	permitted *config.Limits // whose lists are in force
	found     finding        // what of discovery was said last
	targets   int            // in force
}

// run starts everything, waits for the end and ends everything. Its error says
// in one line what to do.
func (d *daemon) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// Whoever reads our log may end, as a container's engine does that is restarted: Go
	// would have us die of the next line.
	signal.Ignore(syscall.SIGPIPE)
	hup := make(chan os.Signal, 1) // from here on, so that an early one does not kill
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	d.unconfined = shed()
	d.budget = memory.Find()
	d.budget.Keep()
	if err := checkMetricsPath(d.metricsPath); err != nil {
		return err
	}
	if err := d.checkHosts(); err != nil {
		return err
	}
	if file := *d.web.WebConfigFile; file != "" {
		if err := web.Validate(file); err != nil {
			return fmt.Errorf("--web.config.file=%s: %s", file, webConfigError(err))
		}
	}
	m, err := findManager()
	if err != nil {
		return err
	}
	defer m.close()
	d.manager = m
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if err := narrow(listeners, d.budget.Sockets()/mostConnections); err != nil {
		return err
	}
	if d.own, err = ownAddresses(listeners); err != nil {
		return err
	}
	if err := d.addresses.refresh(); err != nil {
		return err
	}
	c, err := d.load()
	if err != nil {
		return err
	}
	networks, err := openNetworks(c)
	if err != nil {
		return err
	}
	defer networks.close()
	if err := discovery.Check(discoveries(c)); err != nil {
		return err
	}
	d.byPacket = byPacket(c) != ""
	d.assemble(c, networks)
	if err := d.apply(c); err != nil {
		return err
	}
	d.unconfined = errors.Join(d.unconfined, confined(networks...))
	return d.serve(ctx, hup, listeners, networks[0])
}

// networks are a network for each loop.
type networks []*host.Network

func (n networks) close() {
	for _, one := range n {
		_ = one.Close()
	}
}

// openNetworks opens the sockets that probing needs.
func openNetworks(c *config.Config) (networks, error) {
	if err := checkHost(c); err != nil {
		return nil, err
	}
	giveLoops(c.Global.Loops)
	var all networks
	for _, part := range c.Global.SourcePorts.Split(c.Global.Loops) {
		n, err := host.Open(host.Ports{Reserved: host.Range(part.Reserved()), Guarded: host.Range(part.Guarded()), Packet: byPacket(c) != ""})
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// giveLoops has the Go scheduler run one thread more for each loop: a loop keeps its
// place while it sleeps briefly (rawsock.Poller.Wait), which nobody else should miss.
func giveLoops(n int) { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n) }

// byPacket names a module that sends by packet sockets, if one does.
func byPacket(c *config.Config) string {
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		if c.Modules[name].Packet {
			return name
		}
	}
	return ""
}

// checkHost reports what a configuration asks of this host that it does not
// have.
func checkHost(c *config.Config) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		m := c.Modules[name]
		if err := host.Check(m.Interface, m.SourceAddress); err != nil {
			errs = append(errs, fmt.Errorf("modules.%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// assemble wires the parts.
func (d *daemon) assemble(c *config.Config, networks networks) {
	skips := make([]string, engine.NumSkipReasons)
	for i := range skips {
		skips[i] = engine.SkipReason(i).String()
	}
	d.complaints = newComplaints(d.log)
	d.callers = d.crowd()
	d.metrics = metrics.New(metrics.Options{
		Version:     version.Version,
		Revision:    version.GetRevision(),
		Stats:       d.stats,
		SkipReasons: skips,
	})
	heartbeat, every := d.heartbeat()
	seed, err := issSeed()
	d.unconfined = errors.Join(d.unconfined, err)
	var parts []engine.Part
	for i, part := range c.Global.SourcePorts.Split(c.Global.Loops) {
		parts = append(parts, engine.Part{
			Network: networks[i], Reserved: engine.Ports(part.Reserved()), Guarded: engine.Ports(part.Guarded()),
		})
	}
	d.shards = engine.NewGroup(engine.Config{
		Observer:       observer{d.metrics, d.complaints},
		Limits:         limits(c),
		Seed:           seed,
		Drain:          drainTime,
		Heartbeat:      heartbeat,
		HeartbeatEvery: every,
	}, parts)
	// Strict, because a resolver that isn't takes a passing SERVFAIL for one
	// family, with an empty answer for the other, for "no such host".
	resolver := targets.Families{Resolver: &net.Resolver{PreferGo: true, StrictErrors: true}}
	d.roster = targets.New(d.shards, d.metrics, resolver, d.log)
	d.discovery = discovery.New(d.rediscover, d.budget, d.log)
}

// serve runs the parts until ctx ends or one of them fails. While the open
// conversations end, for drainTime at most, the web listeners stay: a scrape then
// still has an answer, and /-/ready says no. What ends after the last scrape is in
// none; the listeners wait for requests that have begun, not for new ones.
func (d *daemon) serve(ctx context.Context, hup <-chan os.Signal, listeners []net.Listener, network *host.Network) error {
	servers, err := d.servers(len(listeners))
	if err != nil {
		return err
	}
	d.sayDefault(d.log) // now that the start has succeeded: an error would have been the only line
	d.sayUnconfined()
	group, ctx := errgroup.WithContext(ctx)
	probing, probed := context.WithCancel(context.Background())
	group.Go(func() error {
		defer probed()
		d.shards.Run(ctx)
		return nil
	})
	group.Go(func() error {
		d.roster.Run(ctx)
		return nil
	})
	group.Go(func() error {
		d.discovery.Run(ctx)
		return nil
	})
	group.Go(func() error {
		d.watchAddresses(ctx, network.RouteGeneration)
		return nil
	})
	group.Go(func() error {
		d.reloadOnHangup(ctx, hup)
		return nil
	})
	group.Go(func() error {
		d.complaints.run(ctx)
		return nil
	})
	group.Go(func() error {
		d.report(ctx)
		return nil
	})
	for i, s := range servers {
		group.Go(func() error { return d.serveWeb(s, listeners[i]) })
	}
	group.Go(func() error {
		<-ctx.Done()
		d.ready.Store(false)
		d.notified(d.manager.tell("STOPPING=1", "STATUS=closing the open conversations"))
		d.log.Info("closing the open conversations")
		<-probing.Done()
		shutdown(servers)
		return nil
	})
	d.ready.Store(true)
	d.notified(d.manager.tell("READY=1", "STATUS=probing"))
	d.log.Info("probing", "targets", d.probed(), "version", version.Version)
	return group.Wait()
}

// stats is asked at every scrape.
func (d *daemon) stats() metrics.Stats {
	s := d.shards.Totals()
	return metrics.Stats{
		Targets:          s.Targets,
		Conversations:    s.Conversations,
		SegmentsSent:     s.SegmentsSent,
		SegmentsReceived: s.SegmentsReceived,
		StampFallbacks:   s.StampFallbacks,
		TapDrops:         s.TapDrops,
		ResolveFailures:  d.roster.ResolveFailures.Load(),
		Forbidden:        int(d.roster.Forbidden.Load()),
	}
}

// An observer books what concerns probed itself with the metrics, and what
// this host has against it with the log.
type observer struct {
	*metrics.Metrics
	*complaints
}

// Skipped implements engine.Observer.
func (o observer) Skipped(r engine.SkipReason, probes int) { o.Metrics.Skipped(r.String(), probes) }

func limits(c *config.Config) engine.Limits {
	l := c.Global.Limits
	return engine.Limits{Global: l.PacketsPerSecond, PerAddress: l.PacketsPerSecondPerAddress}
}

// permit returns what the limits of a configuration say of addresses: the same value
// as before where they say the same.
func (d *daemon) permit(c *config.Config) *config.Limits {
	l := &c.Global.Limits
	if d.permitted == nil || !l.Deny.Equal(&d.permitted.Deny) || !l.Allow.Equal(&d.permitted.Allow) {
		d.permitted = l
	}
	return d.permitted
}

// load reads the configuration file, or the embedded default if none was named
// and there is none in the default place. A file that has been in force and is
// gone is an error: nobody means to trade it for the default.
func (d *daemon) load() (*config.Config, error) {
	if _, err := os.Stat(d.configFile); !d.configNamed && !d.fromFile && errors.Is(err, fs.ErrNotExist) {
		return config.Default(d.own)
	}
	o := d.options
	o.Own, o.Readable, o.Reserve = d.addresses.has, readableFiles, d.budget.Reserve
	c, err := o.Load(d.configFile)
	d.fromFile = d.fromFile || err == nil
	return c, sayOwner(err, d.configFile)
}

// sayDefault says that the embedded default is in force, if it is: whoever meant
// to have a file learns where it was looked for.
func (d *daemon) sayDefault(log *slog.Logger) {
	if !d.fromFile {
		log.Info("no configuration file: probing our own web listener", "looked_for", d.configFile)
	}
}

// apply puts a configuration in force, with what was discovered for it so far, and
// says so in the metrics. An error changes nothing.
func (d *daemon) apply(c *config.Config) error {
	err := d.discovery.Apply(discoveries(c))
	if err == nil {
		d.config = c
		l, rules := limits(c), d.permit(c)
		if !rules.Free() {
			l.Rules = rules
		}
		d.shards.SetLimits(l)
		d.roster.Permit(rules)
		d.expand()
	}
	d.metrics.ConfigReload(err == nil, time.Now())
	return err
}

// reload loads the configuration again, and says in a log what came of it. One that fails
// changes nothing. The file, those that it names and the file system that they are on may take
// their time: nobody but another reload waits for that.
func (d *daemon) reload(log *slog.Logger) (err error) {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	d.notified(d.manager.reloading())
	defer func() {
		d.notified(d.manager.reloaded(err != nil, time.Now(), d.probed()))
	}()
	c, err := d.load()
	if err == nil {
		err = checkHost(c)
	}
	before := d.running()
	if old := before.Global.SourcePorts; err == nil && c.Global.SourcePorts != old {
		err = fmt.Errorf("global.source_ports: %d-%d are held until probed ends: restart it to change them", old.First, old.Last)
	}
	if old := before.Global.Loops; err == nil && c.Global.Loops != old {
		err = fmt.Errorf("global.loops: %d run until probed ends: restart it to change them", old)
	}
	if err == nil {
		err = discovery.Check(discoveries(c))
	}
	if err != nil {
		d.metrics.ConfigReload(false, time.Now())
		log.Error("configuration not reloaded: the old one stays in force", "err", err)
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.apply(c); err != nil {
		log.Error("configuration not reloaded: the old one stays in force", "err", err)
		return err
	}
	d.sayDefault(log)
	if module := byPacket(c); module != "" && !d.byPacket {
		log.Warn("transmit: packet needs a socket that is opened at the start alone: segments go by raw sockets until probed is started again", "module", module)
	}
	log.Info("configuration reloaded", "targets", d.targets)
	return nil
}

// reloadOnHangup reloads at every SIGHUP until ctx ends. It does not wait then for what is being
// read.
func (d *daemon) reloadOnHangup(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			read := make(chan struct{})
			go func() {
				defer close(read)
				_ = d.reload(d.log) // which says what went wrong
			}()
			select {
			case <-ctx.Done():
			case <-read:
			}
		}
	}
}

// running returns the configuration in force.
func (d *daemon) running() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}
