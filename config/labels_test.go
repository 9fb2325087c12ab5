package config

import (
	"slices"
	"testing"
)

// A label that is probed's own is told by another name, which no other label has.
func TestExportedLabels(t *testing.T) {
	got := exported(Labels{{"target", "1"}, {"exported_target", "2"}, {"a", "3"}, {"le", "4"}})
	want := Labels{{"a", "3"}, {"exported_exported_target", "1"}, {"exported_le", "4"}, {"exported_target", "2"}}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Labels that are exported alike make one series, and so one target, whether they are
// written one way now and the other way after a reload, or both ways in one list.
func TestLabelsExportedAlike(t *testing.T) {
	rules := func(name string) []byte {
		return []byte("jobs: [{name: j, static_configs: [{targets: [\"198.18.0.1:80\"], labels: {a: b}}], relabel_configs: [{source_labels: [a], target_label: " + name + "}]}]")
	}
	var ls []Labels
	for _, name := range []string{"target", "exported_target"} {
		c, err := Parse("f", rules(name))
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, c.Targets()[0].Labels)
	}
	if !slices.Equal(ls[0], ls[1]) {
		t.Errorf("%q and %q", ls[0], ls[1])
	}
	c, err := Parse("f", []byte(`jobs: [{name: j, static_configs: [{targets: ["a:1"], labels: {x: b}}, {targets: ["a:1"], labels: {y: b}}],
  relabel_configs: [{source_labels: [x], regex: (.+), target_label: target}, {source_labels: [y], regex: (.+), target_label: exported_target}, {regex: "[xy]", action: labeldrop}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if x := c.Expand(nil); len(x.Targets) != 1 || x.Jobs[0].Duplicates != 1 {
		t.Errorf("%+v", x)
	}
}
