package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/probe"
	"gopkg.in/yaml.v3"
)

// The tables: one per mapping, in the order in which they are read and printed.

var root = object[Config]{refused: globalKeys, keys: []key[Config]{
	{
		Key:   Key{Path: "global", Allowed: "a mapping"},
		read:  readGlobal,
		write: func(c *Config) *yaml.Node { return global.print(&c.Global) },
	},
	{
		Key:   Key{Path: "modules", Allowed: "a mapping of module names to modules"},
		read:  readModules,
		write: printModules,
	},
	{
		Key:   Key{Path: "jobs", Allowed: "a list of jobs, each with a name and targets", Required: true},
		also:  []string{"scrape_configs", "targets"},
		read:  readJobs,
		write: func(c *Config) *yaml.Node { return printList(c.Jobs, job) },
	},
}}

// pace are the keys that say when, which global, modules and jobs share;
// longest is the longest timeout, and inherited says where the latter two have
// their defaults from.
func pace[T any](longest time.Duration, timeoutDoc, inherited string, of func(*T) *Pace) []key[T] {
	keys := []key[T]{
		at(Key{Path: "interval", Example: "10s", Doc: "Time from one probe of a target to the next."},
			duration(shortestInterval, longestInterval), func(v *T) *time.Duration { return &of(v).Interval },
			"scrape_interval", "period"),
		at(Key{Path: "timeout", Example: "900ms", Doc: timeoutDoc},
			duration(shortestTimeout, longest), func(v *T) *time.Duration { return &of(v).Timeout },
			"scrape_timeout"),
		at(Key{Path: "jitter", Example: "100ms", Doc: "Each probe is late by a random time between 0 and this, at most the interval."},
			duration(0, 24*time.Hour), func(v *T) *time.Duration { return &of(v).Jitter }),
	}
	for i := range keys {
		keys[i].Default = inherited
	}
	return keys
}

// modulePace is pace with the defaults of the kinds.
func modulePace() []key[Module] {
	keys := pace(longestTimeout, kindsTimeout+" A full accept queue shows by a SYN-ACK that comes again after a second, so that these want more than that. Above 5m is for passive_close and time_wait, whose peer may close at an idle timeout of its own.",
		"as in global", func(m *Module) *Pace { return &m.Pace })
	keys[0].Default += "; with `measure: duration` at least 5m"
	keys[1].Default += " for half_open, 5s for the other kinds"
	return keys
}

// What timeout is about.
const (
	globalTimeout = "Time from the SYN until a half_open probe without an answer has failed. It may exceed the interval: probes then overlap. The other kinds have a timeout of their own."
	kindsTimeout  = "Time from the SYN until a probe has failed: half_open without an answer, the other kinds without the last ACK. It may exceed the interval: probes then overlap."
)

var global = object[Global]{keys: append(pace(usualTimeout, globalTimeout, "", func(g *Global) *Pace { return &g.Pace }),
	at(Key{Path: "source_ports", Example: "61000-61255", Doc: "TCP ports that probes leave from. They must be free, and outside net.ipv4.ip_local_port_range. The lower half is for half_open, the upper half for the other kinds, and it must hold all their conversations with one address and port that can be open at once: timeout divided by interval."},
		portRange, func(g *Global) *PortRange { return &g.SourcePorts }, "source_port", "ports"),
	at(Key{Path: "loops", Unit: "loops", Example: "2", Doc: "How many loops probe side by side, each on a processor of its own if there is one, with a part of source_ports and of the limit. One is enough as long as its processor is not busy. A target's probes leave from its loop's ports, so that with the double of loops source_ports must be twice as wide for as many four-tuples."},
		number[int](1, 64), func(g *Global) *int { return &g.Loops }),
	nested(Key{Path: "limits", Example: "{packets_per_second: 50000}", Doc: "What probed itself may send, and where to. A configuration that would need more is refused."},
		limits, func(g *Global) *Limits { return &g.Limits }),
	at(Key{Path: "resolve_interval", Example: "5m", Doc: "Time from one look-up of a host name to the next."},
		duration(time.Second, 24*time.Hour), func(g *Global) *time.Duration { return &g.ResolveInterval },
		"refresh_interval"),
)}

var limits = object[Limits]{keys: []key[Limits]{
	at(Key{Path: "packets_per_second", Unit: "packets per second", Example: "50000", Doc: "To all targets together. A half_open probe is 2 packets: a SYN and a RST. One of passive_close is 4 and one for each 1220 octets to send; one of active_close is 1 more, one of time_wait 3 more, and with `measure: duration` one for each second of limit."},
		number[int](1, 100_000_000), func(l *Limits) *int { return &l.PacketsPerSecond }),
	at(Key{Path: "packets_per_second_per_address", Unit: "packets per second", Example: "50", Doc: "To one IP address or host name, all its ports together."},
		number[int](1, 100_000_000), func(l *Limits) *int { return &l.PacketsPerSecondPerAddress }),
	at(Key{Path: "deny", Example: `["10.0.0.0/8", "2001:db8::/32", "198.18.0.1"]`, Doc: "Addresses that nothing is ever sent to, whoever asks: a target of this file is an error, a discovered one is left out, what a name resolves to there is not probed, and `/probe` answers 403. What both lists have is denied. An IPv4 block means these addresses in IPv6 too: mapped (::ffff:0:0/96), translated (64:ff9b::/96) and 6to4 (2002::/16)."},
		blocks, func(l *Limits) *Blocks { return &l.Deny }, "denylist", "blacklist", "blocklist"),
	at(Key{Path: "allow", Example: `["198.18.0.0/15", "2001:db8::/32"]`, Default: "", Doc: "The only addresses that anything is sent to, if the key is there; and those for which `/probe` answers everybody. Without it `/probe` answers other hosts only for what the jobs probe, address and port ([security.md](security.md#who-may-have-what-probed)). `[\"0.0.0.0/0\", \"::/0\"]` opens `/probe` for all."},
		someBlocks, func(l *Limits) *Blocks { return &l.Allow }, "allowlist", "whitelist"),
}}

var module = object[Module]{
	keys: append(append([]key[Module]{
		{
			Key:   Key{Path: "probe", Allowed: kind.allowed, Example: "half_open", Required: true, Doc: "What a probe does. half_open: SYN, SYN-ACK, RST. active_close: a connection that we close first. passive_close: one that the peer closes first. time_wait: a passive_close, and then what the peer does with its TIME-WAIT. A module that is named like a kind may leave it out."},
			also:  []string{"prober", "type", "kind"},
			given: func(m *Module) bool { return m.Probe != 0 },
			read:  readKind,
			write: func(m *Module) *yaml.Node { return kind.write(m.Probe) },
		},
		of(onlyTimeWait, key[Module]{
			Key:   Key{Path: "measure", Allowed: measure.allowed, Example: "duration", Doc: "reuse: whether the peer takes a new SYN on the same four-tuple. duration: how long its TIME-WAIT lasts, by a SYN a second that does not disturb it. One probe must end before the next begins: timeout, limit and jitter together are at most the interval."},
			read:  readMeasure,
			write: func(m *Module) *yaml.Node { return measure.write(m.Measure) },
		}),
	}, modulePace()...),
		at(Key{Path: "ip_protocol", Example: "ip6", Doc: "Which addresses of a host name are used. With any both kinds are asked for; where the name server fails on one, what was known of it stays."},
			oneOf[IPProtocol](ipProtocolNames), func(m *Module) *IPProtocol { return &m.IPProtocol },
			"preferred_ip_protocol", "family"),
		at(Key{Path: "resolve", Example: "all", Doc: "Whether the first address of a host name is probed, or all, with a series for each; of more than 256 the log says once which are left out."},
			oneOf[Resolve](resolveNames), func(m *Module) *Resolve { return &m.Resolve }),
		at(Key{Path: "flows", Unit: "source ports", Example: "8", Doc: "How many source ports a target's probes use in turn, always the same ones, so that each follows one path among several of equal cost. Above 1, probed_flows says how many, and probed_flows_failing how many lose more than the others. They must hold what of the other kinds than half_open can be open at once: timeout divided by interval. A four-tuple comes back after flows times interval: where that is less than 2s, a RST or a last ACK that the network loses fails the next probe on it, too, as challenge_ack or bad_synack, and loss looks up to twice as high."},
			number[int](1, 32768), func(m *Module) *int { return &m.Flows }),
		at(Key{Path: "dscp", Example: "ef", Doc: "DSCP of what probed sends."},
			dscp, func(m *Module) *uint8 { return &m.TOS }),
		at(Key{Path: "tos", Example: "184", Doc: "The whole octet, DSCP and ECN, in place of dscp."},
			tos, func(m *Module) *uint8 { return &m.TOS }),
		at(Key{Path: "ttl", Unit: "hops", Example: "64", Doc: "TTL or hop limit of what probed sends; without it the host's default."},
			unlessZero(number[uint8](1, 255)), func(m *Module) *uint8 { return &m.TTL }, "hop_limit"),
		at(Key{Path: "mss", Unit: "octets", Example: "1220", Doc: "MSS option of the SYN; without it what the MTU of the route has room for, as Linux's, at most 1460 for IPv4 and 1440 for IPv6. Linux raises a peer's smaller than 88 to 88."},
			unlessZero(numberOrOff[uint16](88, 65535, MSSOff)), func(m *Module) *uint16 { return &m.MSS }),
		at(Key{Path: "window", Unit: "octets", Example: "65535", Doc: "Receive window of the SYN, which is never scaled."},
			number[uint16](1, 65535), func(m *Module) *uint16 { return &m.Window }),
		nested(Key{Path: "tcp_options", Example: "{timestamps: false, ecn: true}", Doc: "What else the SYN offers. The defaults are what Linux offers."},
			tcpOptions, func(m *Module) *TCPOptions { return &m.TCPOptions }),
		at(Key{Path: "source_address", Example: "192.0.2.10", Doc: "Address to send from, one of this host's; without it routing decides. Only targets of its family can be probed."},
			address, func(m *Module) *netip.Addr { return &m.SourceAddress }, "source_ip", "source_ip_address"),
		at(Key{Path: "interface", Example: "eth1", Doc: "Network interface to send through; without it routing decides."},
			device, func(m *Module) *string { return &m.Interface }, "device"),
		at(Key{Path: "transmit", Example: "packet", Doc: "By which sockets segments leave. raw: routing, neighbours, firewall and connection tracking treat them like any client's. packet: a packet socket hands them straight to the device, with the next hop's link address as the kernel knows it; to send takes half to two thirds of the time then. They are then past netfilter's OUTPUT rules, NAT, connection tracking and IPsec: a rule that forbids them is not obeyed while the kernel is sure of the neighbour, and one that lets in what is established keeps the answers from this host's kernel, which probed notices: it goes back to raw with that target for ten minutes at a time and says so in the log. What has no Ethernet device to leave by, no resolved neighbour, or more than 552 octets (IPv6: 1280) goes as raw anyway, and so does everything to this host itself."},
			either("raw", "packet"), func(m *Module) *bool { return &m.Packet }),
		at(Key{Path: "buckets", Unit: "seconds", Example: "[0.001, 0.01, 0.1, 1]", Doc: "Bounds of the classic histograms' buckets. [] turns classic histograms off; native ones are always there."},
			buckets, func(m *Module) *[]float64 { return &m.Buckets }),
		of(onlyHalfOpen, at(Key{Path: "detect_syn_cookies", Example: "true", Doc: "Send each SYN a second time after the RST: the same answer means SYN cookies. A probe is then 4 packets."},
			boolean, func(m *Module) *bool { return &m.DetectSYNCookies })),
		of(pastSYNACK, at(Key{Path: "send", Example: `"HEAD / HTTP/1.0\r\n\r\n"`, Doc: "What to send once the connection is established; nothing without it. In double quotes `\\r`, `\\n`, `\\t`, `\\0`, `\\\\`, `\\\"` and `\\x00` to `\\xff` stand for an octet each, as YAML has them; without double quotes there are no escapes, and a backslash is an error. Text beyond ASCII is written as its octets, é in UTF-8 as `\\xc3\\xa9`, or comes from send_file."},
			octets, func(m *Module) *[]byte { return &m.Send }, "query_response")),
		of(pastSYNACK, at(Key{Path: "send_file", Example: "request.bin", Doc: "A file whose content is sent instead, octet by octet; a relative path is from the folder of the configuration file. It is read with the configuration, so that a reload reads it again; /config shows it as send."},
			sendFile, func(m *Module) *[]byte { return &m.Send })),
		of(onlyActive, at(Key{Path: "hold", Example: "250ms", Doc: "Time from the last octet, or without send from the handshake, to our FIN; less than the timeout."},
			duration(0, usualTimeout), func(m *Module) *time.Duration { return &m.Hold })),
		of(onlyActive, at(Key{Path: "fin_with_data", Example: "true", Doc: "Our FIN is on the last segment of what is sent. It needs send and no hold."},
			boolean, func(m *Module) *bool { return &m.FINWithData })),
		of(peerCloses, at(Key{Path: "close", Example: "combined", Doc: "How the peer's FIN is answered. separate: an ACK, then our FIN. combined: both in one segment."},
			either("separate", "combined"), func(m *Module) *bool { return &m.Combined })),
		measuring(probe.MeasureReuse, at(Key{Path: "after", Example: "5s", Doc: "`measure: reuse`: time from the last ACK, when the peer is in TIME-WAIT, to the new SYN. What the peer does with that is waited for as long as the timeout again."},
			duration(0, time.Hour), func(m *Module) *time.Duration { return &m.After })),
		measuring(probe.MeasureReuse, at(Key{Path: "sequence", Example: "lower", Doc: "`measure: reuse`: whether the new SYN's sequence number is higher than all of the old connection's, which the peer may take, or lower, which it must refuse. If timestamps are on, a lower one goes with an older timestamp: Linux would take a newer one all the same."},
			either("higher", "lower"), func(m *Module) *bool { return &m.Lower })),
		measuring(probe.MeasureDuration, at(Key{Path: "limit", Example: "90s", Doc: "`measure: duration`: how long the end of a TIME-WAIT is waited for. Linux's lasts 60s, lwIP's 120s, RFC 9293's 4m."},
			duration(2*time.Second, 12*time.Hour), func(m *Module) *time.Duration { return &m.Limit })),
	),
}

var tcpOptions = object[TCPOptions]{
	refused: map[string]string{"mss": "mss is a key of the module itself; move it out of tcp_options"},
	keys: []key[TCPOptions]{
		at(Key{Path: "sack", Example: "false", Doc: "Offer selective acknowledgement (RFC 2018)."},
			boolean, func(o *TCPOptions) *bool { return &o.SACK }, "sack_permitted"),
		at(Key{Path: "timestamps", Example: "false", Doc: "Offer timestamps (RFC 7323). Off, and not to be turned on, with `measure: duration`."},
			boolean, func(o *TCPOptions) *bool { return &o.Timestamps }),
		at(Key{Path: "window_scale", Unit: "shift count", Example: "off", Doc: "Offer window scaling with this shift count (RFC 7323)."},
			numberOrOff[int8](0, 14, -1), func(o *TCPOptions) *int8 { return &o.WindowScale }, "wscale"),
		at(Key{Path: "ecn", Example: "true", Doc: "Offer ECN: the flags ECE and CWR (RFC 3168)."},
			boolean, func(o *TCPOptions) *bool { return &o.ECN }),
	},
}

var job = object[Job]{
	refused: otherMechanisms,
	keys: slices.Concat([]key[Job]{
		at(Key{Path: "name", Example: "edge", Required: true, Doc: "The label job_name. Each job has its own."},
			name, func(j *Job) *string { return &j.Name }, "job_name", "job"),
		{
			Key:   Key{Path: "module", Allowed: "the name of a module", Example: "half_open", Doc: "How to probe: a module of this file, or a built-in one."},
			read:  readJobModule,
			write: func(j *Job) *yaml.Node { return word(j.Module) },
		},
	}, jobPace(), []key[Job]{
		at(Key{Path: "labels", Example: "{team: core}", Doc: "Labels of the job's targets."},
			labels, func(j *Job) *Labels { return &j.Labels }),
		written(printJobTargets, at(Key{Path: "targets", Example: `["198.18.0.10:443", "[2001:db8::1]:443", "db.example.net:5432"]`, Doc: "What to probe."},
			endpoints, func(j *Job) *[]Endpoint { return &j.Targets }, "target")),
		{
			Key:   Key{Path: "static_configs", Allowed: "a list of mappings with targets and labels", Example: `[{targets: ["198.18.0.10:443"], labels: {rack: a1}}]`, Doc: "More targets, in groups with labels of their own, which win over the job's. An empty value removes a label of the job."},
			also:  []string{"static_config"},
			read:  readStaticConfigs,
			write: printStaticConfigs,
		},
	}, discoveryKeys(), []key[Job]{
		{
			Key:   Key{Path: "relabel_configs", Allowed: "a list of relabelling rules", Example: "[{source_labels: [rack], regex: lab, action: drop}]", Doc: "What each target goes through before it is probed, as in Prometheus. `__module__`, `__interval__` and `__timeout__` say how it is probed, `__address__` where; [discovery.md](discovery.md) has examples."},
			also:  []string{"relabel_config"},
			read:  readRules,
			write: printRules,
		},
		written(printMesh, nested(Key{Path: "mesh", Example: "{peers: 3}", Doc: "The targets are nodes that all run probed, and this host is one of them: it probes its share of the others, so that each is probed by as many as peers says. What is a host's own is found by its IP address."},
			mesh, func(j *Job) *Mesh { return &j.Mesh })),
	}),
}

var mesh = object[Mesh]{keys: []key[Mesh]{
	at(Key{Path: "peers", Unit: "hosts", Example: "3", Required: true, Doc: "By how many others each node is probed; by all if there are fewer."},
		number[int](1, 1000), func(m *Mesh) *int { return &m.Peers }),
}}

// printMesh leaves the key out of a job that is none.
func printMesh(j *Job) *yaml.Node {
	if j.Mesh.Peers == 0 {
		return nil
	}
	return mesh.print(&j.Mesh)
}

// jobPace is pace with a note of what the job states itself: where it does not,
// it follows its module, or the module that a target has instead.
func jobPace() []key[Job] {
	keys := pace(longestTimeout, kindsTimeout, "as in the module", func(j *Job) *Pace { return &j.Pace })
	for i, states := range []func(*Job) *bool{
		func(j *Job) *bool { return &j.states.interval },
		func(j *Job) *bool { return &j.states.timeout },
		func(j *Job) *bool { return &j.states.jitter },
	} {
		read, write := keys[i].read, keys[i].write
		keys[i].read = func(d *decoder, n *node, j *Job) {
			read(d, n, j)
			*states(j) = true
		}
		keys[i].write = func(j *Job) *yaml.Node {
			if !*states(j) {
				return nil
			}
			return write(j)
		}
	}
	return keys
}

var staticConfig = object[StaticConfig]{keys: []key[StaticConfig]{
	at(Key{Path: "targets", Example: `["198.18.0.10:443"]`, Required: true, Doc: "What to probe."},
		endpoints, func(g *StaticConfig) *[]Endpoint { return &g.Targets }, "target"),
	at(Key{Path: "labels", Example: "{rack: a1}", Doc: "Labels of the group's targets. `__module__`, `__interval__` and `__timeout__` say how they are probed."},
		groupLabels, func(g *StaticConfig) *Labels { return &g.Labels }),
}}

// otherMechanisms are discoveries of Prometheus's that probed does not have.
var otherMechanisms = func() map[string]string {
	keys := make(map[string]string)
	for _, name := range []string{"aws", "azure", "consul", "digitalocean", "docker", "dockerswarm", "ec2", "ecs", "eureka", "gce", "hetzner", "ionos", "kubernetes", "kuma", "lightsail", "linode", "marathon", "nerve", "nomad", "openstack", "ovhcloud", "puppetdb", "scaleway", "serverset", "stackit", "triton", "uyuni", "vultr"} {
		keys[name+"_sd_configs"] = "probed has file_sd_configs, http_sd_configs and dns_sd_configs; let something that knows " + name + " answer one of them"
	}
	return keys
}()

// globalKeys are those that people forget to put under global.
var globalKeys = func() map[string]string {
	keys := make(map[string]string)
	for _, name := range global.names() {
		keys[name] = "unknown key here; put it under global"
	}
	return keys
}()

// nested makes a key that holds a mapping with a table of its own.
func nested[T, V any](k Key, o object[V], field func(*T) *V) key[T] {
	k.Allowed = "a mapping of " + strings.Join(o.names(), ", ")
	return key[T]{
		Key:   k,
		read:  func(d *decoder, n *node, v *T) { o.read(d, n, field(v)) },
		write: func(v *T) *yaml.Node { return o.print(field(v)) },
	}
}

func printList[V any](vs []V, o object[V]) *yaml.Node {
	y := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range vs {
		y.Content = append(y.Content, o.print(&vs[i]))
	}
	return y
}

func printStaticConfigs(j *Job) *yaml.Node {
	if len(j.StaticConfigs) == 0 {
		return nil
	}
	return printList(j.StaticConfigs, staticConfig)
}

func printModules(c *Config) *yaml.Node {
	y := &yaml.Node{Kind: yaml.MappingNode}
	for _, name := range c.moduleNames() {
		m := c.Modules[name]
		y.Content = append(y.Content, word(name), module.print(&m))
	}
	return y
}

func (c *Config) moduleNames() []string {
	names := make([]string, 0, len(c.Modules))
	for name := range c.Modules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// endpoints is a list of targets. The decoder keeps the place of each.
var endpoints = codec[[]Endpoint]{
	allowed: "a list of host:port",
	read: func(d *decoder, n *node) ([]Endpoint, bool) {
		items, ok := d.list(n, "a list of host:port")
		es := slices.Grow([]Endpoint(nil), len(items))
		for _, item := range items {
			s, is := d.text(item, "host:port")
			if !is {
				continue
			}
			e, wrong := parseEndpoint(s)
			if wrong != "" {
				e = Endpoint{Address: s} // relabelling may make one of it
			}
			es = append(es, e)
			d.targets = append(d.targets, item)
		}
		return es, ok
	},
	write: func(es []Endpoint) *yaml.Node {
		y := &yaml.Node{Kind: yaml.SequenceNode}
		for _, e := range es {
			y.Content = append(y.Content, word(e.Address))
		}
		return y
	},
}

// printJobTargets leaves targets out where static_configs has them all: a job
// needs one of the two keys.
func printJobTargets(j *Job) *yaml.Node {
	if len(j.Targets) == 0 && len(j.StaticConfigs)+len(j.Discovery) > 0 {
		return nil
	}
	return endpoints.write(j.Targets)
}

// name is the name of a job or a module, which becomes a label's value.
var name = scalar("a text that no other job has", func(s string) (string, string) { return s, checkName(s) },
	func(s string) string { return s })

func checkName(s string) string {
	switch {
	case strings.TrimSpace(s) == "":
		return "a name must not be blank"
	case s != strings.TrimSpace(s):
		return fmt.Sprintf("%s has blanks at an end; write %s", quote(s), quote(strings.TrimSpace(s)))
	case len(s) > 200:
		return fmt.Sprintf("a name has at most 200 characters, this one has %d", len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return quote(s) + " has a control character in it"
	}
	return ""
}
