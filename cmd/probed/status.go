package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/version"

	"github.com/probed/probed/internal/status"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/probe"
)

// pages returns the handler of the web pages and the API.
func (d *daemon) pages() (*status.Handler, error) {
	return status.New(status.Options{
		Source: source{d.roster},
		Now: func(ctx context.Context, id string) (probe.Transcript, error) {
			v, ok := d.roster.View(id)
			if !ok {
				return probe.Transcript{}, fmt.Errorf("target %s is there no more", id)
			}
			return d.roster.Now(ctx, &v)
		},
		Clock:       time.Now,
		Version:     version.Version,
		MetricsPath: d.metricsPath,
	})
}

// A source shows the roster's targets.
type source struct{ roster *targets.Roster }

// Targets implements status.Source.
func (s source) Targets() []status.Target {
	views := s.roster.Views()
	all := make([]status.Target, len(views))
	for i := range views {
		all[i] = row(&views[i])
	}
	return all
}

// Target implements status.Source.
func (s source) Target(id string) (status.Target, bool) {
	v, ok := s.roster.View(id)
	if !ok {
		return status.Target{}, false
	}
	return row(&v), true
}

func row(v *targets.View) status.Target {
	t := status.Target{
		ID: v.ID, Job: v.Target.Job, Address: v.Target.Address, Module: v.Target.Module.Name, IP: v.IP,
		Remote: v.Remote, Kind: v.Target.Module.Probe, Interval: v.Interval, Flows: v.Target.Module.Flows,
		OneAtATime: v.Target.Module.Measure == probe.MeasureDuration,
		Metrics:    v.Metrics, Recorder: v.Recorder,
	}
	for _, l := range v.Target.Labels {
		t.Labels = append(t.Labels, status.Label{Name: l.Name, Value: l.Value})
	}
	return t
}
