package status

import (
	"sync"
	"time"
)

// snapshotEvery is how old a snapshot gets before there is a new one: all viewers
// share it.
const snapshotEvery = time.Second

// maxSelections bounds how many selections a snapshot remembers.
const maxSelections = 64

// A snapshot is every target's entry at one moment. It does not change.
type snapshot struct {
	at     time.Time
	rows   []*entry // in the configuration's order
	labels []string

	mu         sync.Mutex
	selections map[string]*selection // by query.key
}

// snapshots makes them.
type snapshots struct {
	source Source
	clock  func() time.Time

	mu      sync.Mutex
	current *snapshot
	byID    map[string]*entry
}

// get returns the snapshot in force: a new one if that is older than snapshotEvery.
func (m *snapshots) get() *snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if m.current != nil {
		if age := now.Sub(m.current.at); age >= 0 && age < snapshotEvery {
			return m.current
		}
	}
	targets := m.source.Targets()
	next := &snapshot{at: now, rows: make([]*entry, len(targets)), selections: make(map[string]*selection)}
	byID := make(map[string]*entry, len(targets))
	for i := range targets {
		t := &targets[i]
		next.rows[i] = newEntry(t, m.byID[t.ID])
		byID[t.ID] = next.rows[i]
	}
	next.labels = labelNames(targets)
	m.current, m.byID = next, byID
	return next
}

// due is how long it is until there can be a newer snapshot than that of a moment.
func (m *snapshots) due(at time.Time) time.Duration {
	return max(0, at.Add(snapshotEvery).Sub(m.clock()))
}
