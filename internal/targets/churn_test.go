package targets

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
)

// someTargets are n of a list that starts at the first.
func someTargets(t testing.TB, first, n int) []config.Target {
	t.Helper()
	list := parse(t, `jobs: [{name: j, module: half_open, labels: {team: core, site: b}, targets: ["198.18.0.1:80"]}]`).Targets()
	all := make([]config.Target, n)
	for i := range all {
		k := first + i
		all[i] = list[0]
		e, err := config.ParseEndpoint(fmt.Sprintf("198.%d.%d.%d:80", 18+k>>16, k>>8&0xff, k&0xff))
		if err != nil {
			t.Fatal(err)
		}
		all[i].Endpoint = e
	}
	return all
}

// BenchmarkApply is the cost of a new list of targets: one that says the same, one
// in which every hundredth is another, and one in which all are.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		for name, step := range map[string]int{"same": 0, "hundredth": n / 100, "all": n} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				lists := [][]config.Target{someTargets(b, 0, n), someTargets(b, step, n)}
				r := New(new(nobody), metrics.New(metrics.Options{}), nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
				r.Apply(lists[0], time.Minute)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					if refused := r.Apply(lists[i%2], time.Minute); len(refused) > 0 {
						b.Fatal(refused[0])
					}
				}
			})
		}
	}
}
