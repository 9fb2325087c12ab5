package targets

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe/engine"
)

// A View is what there is to show of one target, or of one of its addresses.
type View struct {
	ID       string // 16 hexadecimal digits: the same after a restart
	Target   config.Target
	IP       string         // the label of that name: with resolve: all
	Remote   netip.AddrPort // invalid while the host name does not resolve
	Metrics  *metrics.Target
	Recorder *recorder.Recorder
	Interval time.Duration

	engine *engine.Target
}

// Views returns what is probed, in the configuration's order.
func (r *Roster) Views() []View {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]View, 0, len(r.targets))
	for _, t := range r.order {
		from := len(all)
		for _, in := range t.instances {
			all = append(all, in.view(t))
		}
		slices.SortFunc(all[from:], func(a, b View) int { return cmp.Compare(a.IP, b.IP) })
	}
	return all
}

// View returns that of an ID.
func (r *Roster) View(id string) (View, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil || formatID(n) != id {
		return View{}, false
	}
	for _, t := range r.order {
		for _, in := range t.instances {
			if in.engine.ID == n {
				return in.view(t), true
			}
		}
	}
	return View{}, false
}

func (in *instance) view(t *target) View {
	return View{
		ID: formatID(in.engine.ID), Target: t.conf, IP: in.ip, Remote: in.engine.Remote,
		Metrics: in.metrics, Recorder: &in.recorder, Interval: in.engine.Interval,
		engine: in.engine,
	}
}

func formatID(id uint64) string { return fmt.Sprintf("%016x", id) }
