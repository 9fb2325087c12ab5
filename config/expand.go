package config

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// Bounds of what discovery can make of a configuration.
const (
	maxTargets      = 500_000 // of all jobs together, the static ones among them
	maxLabels       = 64      // of a target, after relabelling
	maxLabelValue   = 2048    // octets of one of them
	problemsPerJob  = 10      // kept; the rest are counted
	problemMostText = 300     // characters of each text of a Problem
)

// An Expansion is what a configuration and what was discovered make together.
type Expansion struct {
	Targets  []Target // that this host probes, in the order of the jobs
	Jobs     []Tally  // one for each of Config.Jobs, in its order
	Problems []Problem
}

// A Tally says what became of a job's targets.
type Tally struct {
	Job        string
	Discovered int  // as discovery gave them
	Invalid    int  // of those, left out: each is a Problem, or counted in the last one
	Dropped    int  // by relabelling, static ones too
	Duplicates int  // what is there already after relabelling
	Elsewhere  int  // probed by other shards, or other nodes of the mesh
	Nodes      int  // of the mesh
	Member     bool // this host is one of the mesh's nodes
}

// A Problem is why a discovered target is left out. Its texts are of bounded length
// and without control characters.
type Problem struct {
	Job     string
	Source  string // the group that it is in, as its discovery calls it
	Address string // as it is after relabelling; empty if it concerns several
	Reason  string
}

// String is one line.
func (p Problem) String() string {
	s := "job " + p.Job + ": "
	if p.Source != "" {
		s += p.Source + ": "
	}
	if p.Address != "" && !strings.Contains(p.Reason, p.Address) {
		s += p.Address + ": "
	}
	return s + p.Reason
}

// Targets returns every static target that this host probes, in the file's order.
func (c *Config) Targets() []Target { return c.Expand(nil).Targets }

// Expand returns the targets that this host probes: the static ones, and those of
// the groups that discovery found for each job, by its name. Each goes through the
// job's relabelling; what is there already then goes; a mesh keeps this host's
// share of its nodes, and of the other jobs' targets the shard has its part. The most
// targets that there may be are those of one host.
func (c *Config) Expand(found map[string][]*targetgroup.Group) Expansion {
	all, _ := c.expand(found, maxTargets)
	return all
}

// expand is Expand, with the most targets that discovery may bring their number to.
// Of each target it says besides the how manieth static one of the file it is, from 0.
func (c *Config) expand(found map[string][]*targetgroup.Group, most int) (all Expansion, origins []int) {
	first := 0
	for i := range c.Jobs {
		j := &c.Jobs[i]
		groups := slices.Clone(found[j.Name])
		x := newExpander(c, j)
		if j.Mesh.Peers == 0 { // that one is divided by its nodes, once all of them are known
			x.shard = c.options.Shard
		}
		n := x.shard.about(j.count(groups))
		// One list for all jobs: targets are large.
		x.from, x.next, x.most = len(all.Targets), first, most
		x.targets, x.origins = slices.Grow(all.Targets, n), slices.Grow(origins, n)
		x.seen = make(map[identity]int, n)
		j.eachStatic(func(e *Endpoint, labels Labels) { x.static(e, labels) })
		first = x.next
		// The first of duplicates stays, so that their order must not be by chance.
		slices.SortStableFunc(groups, func(a, b *targetgroup.Group) int { return cmp.Compare(source(a), source(b)) })
		for _, g := range groups {
			x.group(g)
		}
		if j.Mesh.Peers > 0 {
			x.share()
		}
		all.Targets, origins = x.targets, x.origins
		all.Problems = append(all.Problems, x.problems...)
		all.Jobs = append(all.Jobs, x.tally)
	}
	if n := len(all.Targets); cap(all.Targets) > n+n/4 { // as a mesh's nodes leave it
		all.Targets = slices.Clone(all.Targets)
	}
	return all, origins
}

// count returns how many targets a job can have at most.
func (j *Job) count(groups []*targetgroup.Group) int {
	n := len(j.Targets)
	for _, g := range j.StaticConfigs {
		n += len(g.Targets)
	}
	for _, g := range groups {
		if g != nil {
			n += len(g.Targets)
		}
	}
	return min(n, maxTargets)
}

func source(g *targetgroup.Group) string {
	if g == nil {
		return ""
	}
	return g.Source
}

// eachStatic calls f with each static target of the job and the labels that it has
// before relabelling.
func (j *Job) eachStatic(f func(*Endpoint, Labels)) {
	labels := j.Labels.merge(nil)
	for i := range j.Targets {
		f(&j.Targets[i], labels)
	}
	for _, g := range j.StaticConfigs {
		labels := j.Labels.merge(g.Labels)
		for i := range g.Targets {
			f(&g.Targets[i], labels)
		}
	}
}

// expander turns what stands for the targets of one job into them.
type expander struct {
	relabeller
	tally    Tally
	problems []Problem
	targets  []Target // of the jobs before too
	origins  []int    // of each target
	from     int      // where this job's begin
	next     int      // the origin of the next one
	most     int      // how many targets discovery may make them
	seen     map[identity]int
	shard    Shard               // of whose targets alone more is kept than a hash
	seed     maphash.Seed        // of the hashes
	others   map[uint64]struct{} // hashes of the identities of other shards' targets
}

// newExpander returns an expander of all of a job's targets.
func newExpander(c *Config, j *Job) *expander {
	return &expander{
		relabeller: newRelabeller(c, j),
		tally:      Tally{Job: j.Name},
		seen:       make(map[identity]int),
		seed:       maphash.MakeSeed(),
		others:     make(map[uint64]struct{}),
	}
}

// What became of a target.
type fate struct {
	wrong string // why it cannot be probed
	twin  *int   // the origin of the one of ours that it is a duplicate of, if it is one
}

// static adds a target of the file.
func (x *expander) static(e *Endpoint, labels Labels) fate {
	t, keep, wrong := x.relabeller.static(e, labels)
	f := x.add(t, keep, wrong, math.MaxInt)
	x.next++
	return f
}

// group adds the targets of a discovered group.
func (x *expander) group(g *targetgroup.Group) {
	if g == nil {
		return
	}
	x.tally.Discovered += len(g.Targets)
	for i, labels := range g.Targets {
		if i%64 == 0 {
			runtime.Gosched() // lest a long list keep the only processor from the probes
		}
		t, keep, wrong := x.discovered(labels, g.Labels)
		if f := x.add(t, keep, wrong, x.most); f.wrong != "" {
			x.problem(g.Source, t.Address, f.wrong)
		}
	}
}

// add takes a target in unless something is wrong with it, or relabelling drops
// it, or it is there already, or is another shard's, or there are so many already.
//
// Of duplicates the first stays, on whichever shard it is: they may be written
// differently, A:1 and a:1, and how one is written decides its shard. So each shard
// knows the others' targets, by a hash: two of 500,000 are taken for the same once in
// 10^8 times.
func (x *expander) add(t Target, keep bool, wrong string, most int) fate {
	switch {
	case wrong != "":
		return fate{wrong: wrong}
	case !keep:
		x.tally.Dropped++
		return fate{}
	}
	id := identity{t.bareHost(), t.Port, t.Module.Name, x.fingerprint(t.Labels)}
	if twin, is := x.seen[id]; is {
		x.tally.Duplicates++
		return fate{twin: &x.origins[twin]}
	}
	if x.shard.Count > 1 {
		h := maphash.Comparable(x.seed, id)
		if _, is := x.others[h]; is {
			x.tally.Duplicates++
			return fate{}
		}
		if !x.shard.Owns(&t) {
			x.others[h] = struct{}{}
			x.tally.Elsewhere++
			return fate{}
		}
	}
	if len(x.targets) >= most {
		return fate{wrong: "there are " + commas(most) + " targets, and that is the most"}
	}
	x.seen[id] = len(x.targets)
	x.targets = append(x.targets, t)
	x.origins = append(x.origins, x.next)
	return fate{}
}

// share keeps those of a mesh's targets that this host probes.
func (x *expander) share() {
	ts, origins := x.targets[x.from:], x.origins[x.from:]
	var ours []bool
	ours, x.tally.Member, x.tally.Nodes = x.j.Mesh.share(ts, x.c.options.Own)
	n := 0
	for i := range ts {
		if !ours[i] {
			continue
		}
		if n < i {
			ts[n], origins[n] = ts[i], origins[i]
		}
		n++
	}
	x.tally.Elsewhere = len(ts) - n
	clear(ts[n:]) // of the labels
	x.targets, x.origins = x.targets[:x.from+n], x.origins[:x.from+n]
}

// problem counts a target that is left out, and says why unless that has been said
// of many.
func (x *expander) problem(source, address, reason string) {
	x.tally.Invalid++
	p := Problem{x.j.Name, visible(withoutPassword(source)), visible(withoutUserinfo(address)), visible(reason)}
	if x.tally.Invalid > problemsPerJob {
		p = Problem{Job: x.j.Name, Reason: fmt.Sprintf("and %s more that cannot be probed", commas(x.tally.Invalid-problemsPerJob))}
		x.problems = x.problems[:problemsPerJob]
	}
	x.problems = append(x.problems, p)
}

// fingerprint writes labels as one text.
func (x *expander) fingerprint(ls Labels) string {
	if len(ls) == 0 {
		return ""
	}
	if len(x.last) == len(ls) && &x.last[0] == &ls[0] {
		return x.lastPrint
	}
	var b strings.Builder
	for _, l := range ls {
		b.WriteString(l.Name)
		b.WriteByte(0xff) // in no UTF-8
		b.WriteString(l.Value)
		b.WriteByte(0xff)
	}
	x.last, x.lastPrint = ls, b.String()
	return x.lastPrint
}
