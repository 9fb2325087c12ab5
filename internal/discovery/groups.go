package discovery

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// inOrder returns groups in an order that is the same every time: the manager's is
// that of a map.
func inOrder(groups []*targetgroup.Group) []*targetgroup.Group {
	groups = slices.Clone(groups)
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
