package config

import (
	"net/netip"
	"time"

	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/probed/probed/probe"
)

// Config is a validated configuration. Every value is in force as it stands:
// what a file leaves out has been filled in by inheritance, a module's from
// global and a job's from its module.
type Config struct {
	Global  Global
	Modules map[string]Module // by name; the built-in kinds are always there
	Jobs    []Job             // as in the file

	options Options
}

// Pace says when a target is probed.
type Pace struct {
	Interval time.Duration // from one probe of a target to the next
	Timeout  time.Duration // from the SYN; may exceed Interval: probes then overlap
	Jitter   time.Duration // each probe is late by a random time from 0 to this
}

// Global holds what concerns probed as a whole, and the defaults of modules.
type Global struct {
	Pace
	SourcePorts     PortRange
	Loops           int // that probe side by side, each from a part of SourcePorts
	Limits          Limits
	ResolveInterval time.Duration // from one look-up of a host name to the next
}

// Limits bound what probed itself sends, and say where to. They are checked when a
// configuration is loaded and kept at run time.
type Limits struct {
	PacketsPerSecond           int
	PacketsPerSecondPerAddress int
	Deny                       Blocks // nothing is sent there
	Allow                      Blocks // if there are any, nothing is sent elsewhere
}

// PortRange is an inclusive range of TCP ports.
type PortRange struct{ First, Last uint16 }

// Len returns how many ports the range holds.
func (r PortRange) Len() int { return int(r.Last) - int(r.First) + 1 }

// Split returns n parts of the range, one after the other, whose lengths differ by one
// port at most.
func (r PortRange) Split(n int) []PortRange {
	parts := make([]PortRange, n)
	for i := range parts {
		first := int(r.First) + i*r.Len()/n
		parts[i] = PortRange{uint16(first), uint16(int(r.First) + (i+1)*r.Len()/n - 1)}
	}
	return parts
}

// loopPorts are as many source ports as every loop has.
func (g *Global) loopPorts() PortRange {
	return PortRange{g.SourcePorts.First, g.SourcePorts.First + uint16(g.SourcePorts.Len()/g.Loops) - 1}
}

// Reserved returns the lower half, the larger one if Len is odd: the ports of
// half_open, bound but not listening.
func (r PortRange) Reserved() PortRange {
	return PortRange{r.First, r.First + uint16((r.Len()+1)/2-1)}
}

// Guarded returns the upper half: the ports of everything that goes past the
// SYN-ACK.
func (r PortRange) Guarded() PortRange { return PortRange{r.Reserved().Last + 1, r.Last} }

// Module is a named way of probing.
type Module struct {
	Name string // its key in Config.Modules
	Pace
	Probe            probe.Kind
	IPProtocol       IPProtocol
	Resolve          Resolve
	Flows            int // source ports per target, used in turn
	TOS              uint8
	TTL              uint8  // 0: the host's default
	MSS              uint16 // octets; 0: the address family's usual one, or what the route has room for; MSSOff: the SYN carries no MSS option
	Window           uint16 // SEG.WND of the SYN
	TCPOptions       TCPOptions
	SourceAddress    netip.Addr // the zero Addr: routing decides
	Interface        string     // empty: routing decides
	Buckets          []float64  // seconds, ascending; nil: no classic buckets
	Packet           bool       // transmit: segments go to their next hop by a packet socket where they can
	DetectSYNCookies bool       // half_open

	// The rest is for the kinds that go past the SYN-ACK; zero where the module's
	// kind has no use for it.

	Send        []byte        // what to send once the connection is established
	Hold        time.Duration // active_close: from the last octet to our FIN
	FINWithData bool          // active_close: our FIN is on the last segment of data
	Combined    bool          // passive_close, time_wait: ACK and FIN answer in one segment
	Measure     probe.Measure // time_wait
	After       time.Duration // reuse: from the last ACK to the SYN
	Lower       bool          // reuse: the SYN's sequence number is one that the peer must refuse
	Limit       time.Duration // duration: how long a TIME-WAIT is waited for
}

// MSSOff is the Module.MSS of a SYN without the option.
const MSSOff = 1

// What fits into an Ethernet frame of 1500 octets beside an IP and a TCP header,
// each without options: what Linux announces there (RFC 6691 §2).
const (
	mss4 = 1500 - 20 - 20
	mss6 = 1500 - 40 - 20
)

// TCPOptions says what else, beside the MSS, a SYN offers.
type TCPOptions struct {
	SACK        bool
	Timestamps  bool
	WindowScale int8 // shift count; -1: the option is left out
	ECN         bool // the flags ECE and CWR, RFC 3168 §6.1.1
}

// Options returns the TCP options of the module's SYN to an address. The
// timestamp's value is the sender's to fill in.
func (m *Module) Options(to netip.Addr) probe.Options {
	var o probe.Options
	if m.MSS != MSSOff {
		o.Set |= probe.OptMSS
		o.MSS = m.MSS
	}
	if m.MSS == 0 {
		o.MSS = mss4
		if to.Is6() {
			o.MSS = mss6
		}
	}
	if m.TCPOptions.SACK {
		o.Set |= probe.OptSACKPermitted
	}
	if m.TCPOptions.Timestamps {
		o.Set |= probe.OptTimestamps
	}
	if m.TCPOptions.WindowScale >= 0 {
		o.Set |= probe.OptWindowScale
		o.WindowScale = uint8(m.TCPOptions.WindowScale)
	}
	return o
}

// Params returns how the module's conversations are held, less what is the
// engine's to choose.
func (m *Module) Params() probe.Params {
	return probe.Params{
		Kind:          m.Probe,
		Timeout:       m.Timeout,
		DetectCookies: m.DetectSYNCookies,
		Send:          uint32(len(m.Send)),
		Hold:          m.Hold,
		FINWithData:   m.FINWithData,
		Combined:      m.Combined,
		Measure:       m.Measure,
		After:         m.After,
		Lower:         m.Lower,
		Limit:         m.Limit,
	}
}

// PacketsAtOnce returns the most packets that one probe makes this host send in
// a short time: what the limits count when its SYN goes.
func (m *Module) PacketsAtOnce() int {
	p := m.Params()
	return p.Packets()
}

// PacketsPerProbe returns the most packets that one probe makes this host send.
// Beside those at once there are the touches of a TIME-WAIT, one a second, the
// first of which is among the former.
func (m *Module) PacketsPerProbe() int {
	n := m.PacketsAtOnce()
	if m.Measure == probe.MeasureDuration {
		n += max(int(m.Limit/time.Second)-1, 0)
	}
	return n
}

// Job is a set of targets probed in one way.
type Job struct {
	Name string
	Pace
	Module        string // a key of Config.Modules
	Labels        Labels
	Targets       []Endpoint
	StaticConfigs []StaticConfig
	Discovery     discovery.Configs // of file, http and dns, in this order
	Relabel       []*relabel.Config
	Mesh          Mesh

	states states
}

// states says which of its pace the job states itself, and does not inherit.
type states struct{ interval, timeout, jitter bool }

// StaticConfig is a group of targets with labels of their own. Of an Endpoint
// that only relabelling makes one, there is no more than its Address.
type StaticConfig struct {
	Targets []Endpoint
	Labels  Labels
}

// IPProtocol says which addresses of a host name are used.
type IPProtocol uint8

// The choices of ip_protocol.
const (
	AnyIP IPProtocol = iota
	IP4
	IP6
)

var ipProtocolNames = []string{"any", "ip4", "ip6"}

// String is the value as written in YAML.
func (p IPProtocol) String() string { return ipProtocolNames[p] }

// Resolve says how many addresses of a host name are probed.
type Resolve uint8

// The choices of resolve.
const (
	ResolveFirst Resolve = iota
	ResolveAll
)

var resolveNames = []string{"first", "all"}

// String is the value as written in YAML.
func (r Resolve) String() string { return resolveNames[r] }
