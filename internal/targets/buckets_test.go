package targets

import (
	"slices"
	"testing"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
)

// The configuration prints the default buckets, so it has a list of its own.
func TestDefaultBucketsAgree(t *testing.T) {
	c, err := config.Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Modules["half_open"].Buckets; !slices.Equal(got, metrics.DefaultBuckets()) {
		t.Errorf("the configuration's default buckets are %v, the metrics' %v", got, metrics.DefaultBuckets())
	}
}
