package config

// Target is one thing to probe, with everything in force.
type Target struct {
	Endpoint
	Job    string
	Module *Module // with the job's pace, and the source address's ip_protocol; shared between targets, read only
	Pace
	Labels Labels // the target's own; shared between targets, read only
}

// PacketsPerSecond returns the most that probing this target makes the host
// send to one of its addresses.
func (t *Target) PacketsPerSecond() float64 {
	return float64(t.Module.PacketsPerProbe()) / t.Interval.Seconds()
}
