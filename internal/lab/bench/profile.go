package bench

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// A frame is a function of a stack, and the program or kernel that it belongs to.
type frame struct{ function, of string }

// frameLine is a line of perf-script(1) with -F ip,sym,dso.
var frameLine = regexp.MustCompile(`^\s+[0-9a-f]+ (.*) \((.*)\)$`)

// Profile counts the samples that perf script writes, stacks of which the innermost
// function comes first, by where the time went.
func Profile(r io.Reader) (counts map[string]int, total int, err error) {
	counts = make(map[string]int)
	var stack []frame
	book := func() {
		if len(stack) > 0 {
			counts[where(stack)]++
			total++
		}
		stack = stack[:0]
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := frameLine.FindStringSubmatch(lines.Text())
		if m == nil {
			if strings.TrimSpace(lines.Text()) == "" {
				book()
			}
			continue
		}
		stack = append(stack, frame{m[1], m[2]})
	}
	book()
	if total == 0 && lines.Err() == nil {
		return nil, 0, fmt.Errorf("no stack in what perf says")
	}
	return counts, total, lines.Err()
}

// Part is a part of what a probe costs, by the functions that are its mark: one that is
// anywhere on the stack.
type Part struct {
	Unit  string
	Says  string
	marks []string
}

// kernelParts and goParts are looked at in this order: a tap's copy is made within a
// send, and an arrival is handled there too.
func kernelParts() []Part {
	return []Part{
		{"tap-ns", "kernel: the tap's copy into its ring", []string{"tpacket_rcv", "packet_rcv", "dev_queue_xmit_nit"}},
		{"softirq-ns", "kernel: what arrives (inline: the peer's work and our RST)", []string{"net_rx_action", "process_backlog", "__netif_receive_skb"}},
		{"send-ns", "kernel: the call that sends", []string{"sendmmsg", "sendmsg", "sendto"}},
		{"memory-ns", "kernel: memory", []string{"asm_exc_page_fault", "madvise", "munmap", "mmap"}},
		{"wake-ns", "kernel: sleeping and waking", []string{"nanosleep", "futex", "epoll", "poll", "schedule"}},
	}
}

const module = "github.com/probed/probed/"

func goParts() []Part {
	return []Part{
		{"gc-ns", "Go: the garbage collector", []string{"runtime.gc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.(*sweep", "runtime.wbBufFlush"}},
		{"allocation-ns", "Go: allocating", []string{"runtime.mallocgc", "runtime.growslice", "runtime.newobject"}},
		{"recorder-ns", "recorder: samples and transcripts", []string{module + "internal/recorder."}},
		{"metrics-ns", "metrics: counters and histograms", []string{module + "metrics."}},
	}
}

// layers are the packages whose own time is a part: the innermost of ours counts.
func layers() []Part {
	return []Part{
		{"wire-ns", "wire: octets to segments and back", []string{module + "probe/wire."}},
		{"engine-ns", "engine: schedule, ports, timers, demux", []string{module + "probe/engine."}},
		{"conversation-ns", "probe: the conversation and its transcript", []string{module + "probe."}},
		{"socket-ns", "rawsock and host: ring, batches", []string{module + "rawsock.", module + "internal/host."}},
	}
}

// rest are the parts of what has no mark.
func rest() []Part {
	return []Part{
		{"other-kernel-ns", "kernel: the rest", nil},
		{"runtime-ns", "Go: scheduler, clock and the rest", nil},
	}
}

// Parts are all of them, as they are shown.
func Parts() (all []Part) {
	for _, some := range [][]Part{kernelParts(), layers(), goParts(), rest()} {
		all = append(all, some...)
	}
	return all
}

// where finds the part that a stack belongs to.
func where(stack []frame) (unit string) {
	if strings.Contains(stack[0].of, "kernel") {
		for _, p := range kernelParts() {
			for _, f := range stack {
				if p.marked(f, strings.Contains) {
					return p.Unit
				}
			}
		}
		return rest()[0].Unit
	}
	for _, p := range goParts() {
		for _, f := range stack {
			if p.marked(f, strings.HasPrefix) {
				return p.Unit
			}
		}
	}
	for _, f := range stack {
		for _, p := range layers() {
			if p.marked(f, strings.HasPrefix) {
				return p.Unit
			}
		}
	}
	return rest()[1].Unit
}

func (p Part) marked(f frame, like func(s, mark string) bool) bool {
	for _, mark := range p.marks {
		if like(f.function, mark) {
			return true
		}
	}
	return false
}

// ProfileTable writes where the time of a probe goes: medians, in ns.
func ProfileTable(r Results) string {
	names := r.tools("Profile/")
	if len(names) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| µs of a probe |")
	for _, name := range names {
		b.WriteString(" " + strings.ReplaceAll(name, "/", ", ") + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(names)) + "\n")
	row := func(says, unit string) {
		b.WriteString("| " + says + " |")
		for _, name := range names {
			b.WriteString(" " + digits(median(r.values("Profile/"+name, unit))/1e3) + " |")
		}
		b.WriteByte('\n')
	}
	for _, p := range Parts() {
		row(p.Says, p.Unit)
	}
	row("**all**", "cpu-ns/probe")
	return b.String()
}
