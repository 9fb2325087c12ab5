package discovery

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// dnsName is a label of every target that dns_sd found.
const dnsName = "__meta_dns_name"

// inOrder returns groups in an order that is the same every time. The manager's is
// that of a map, and name servers give their answers another order each time.
func inOrder(groups []*targetgroup.Group) []*targetgroup.Group {
	groups = slices.Clone(groups)
	for i, g := range groups {
		if len(g.Targets) > 1 && g.Targets[0][dnsName] != "" {
			g = &targetgroup.Group{Source: g.Source, Labels: g.Labels, Targets: slices.Clone(g.Targets)}
			slices.SortFunc(g.Targets, func(a, b model.LabelSet) int {
				return cmp.Compare(a[model.AddressLabel], b[model.AddressLabel])
			})
			groups[i] = g
		}
	}
	slices.SortFunc(groups, func(a, b *targetgroup.Group) int {
		if c := cmp.Compare(a.Source, b.Source); c != 0 || len(a.Targets)*len(b.Targets) == 0 {
			return c
		}
		return cmp.Compare(a.Targets[0].String(), b.Targets[0].String()) // of two mechanisms, then
	})
	return groups
}

// same reports whether two lists of groups say the same.
func same(a, b []*targetgroup.Group) bool {
	return slices.EqualFunc(a, b, func(a, b *targetgroup.Group) bool { return a == b || reflect.DeepEqual(a, b) })
}
