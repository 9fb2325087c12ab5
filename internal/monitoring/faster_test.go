package monitoring

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// faster is by how much the live test is: a minute is a second.
const faster = 60

// durations are the places of the rules that have a duration: ranges, offsets,
// intervals and what an alert waits for.
var durations = regexp.MustCompile(`(\[|offset |interval: |for: )([0-9]+(?:ms|s|m|h|d))\b`)

// accelerate returns rules with every duration divided by faster, and nothing else
// changed: the expressions are those of deploy/prometheus.
func accelerate(t *testing.T, rules string) string {
	t.Helper()
	return durations.ReplaceAllStringFunc(rules, func(s string) string {
		m := durations.FindStringSubmatch(s)
		d, err := model.ParseDuration(m[2])
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return m[1] + strconv.FormatInt((time.Duration(d)/faster).Milliseconds(), 10) + "ms"
	})
}

func TestAccelerate(t *testing.T) {
	got := accelerate(t, "interval: 30s\nexpr: rate(x[20m]) > avg_over_time(y[1h] offset 1d)\nfor: 15m\nin 15 minutes")
	want := "interval: 500ms\nexpr: rate(x[20000ms]) > avg_over_time(y[60000ms] offset 1440000ms)\nfor: 15000ms\nin 15 minutes"
	if got != want {
		t.Errorf("%s", got)
	}
}
