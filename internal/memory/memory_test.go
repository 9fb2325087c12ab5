package memory

import (
	"strings"
	"testing"
	"testing/fstest"
)

// The least limit counts, of the group and those above it, whichever version they are of.
func TestLimit(t *testing.T) {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"system.slice/memory.max":                       "max\n",
		"system.slice/probed.service/memory.max":        "268435456\n",
		"pods/memory.max":                               "134217728\n",
		"pods/a/memory.max":                             "max\n",
		"memory/memory.limit_in_bytes":                  "9223372036854771712\n",
		"memory/docker/memory.limit_in_bytes":           "67108864\n",
		"memory/docker/unlimited/memory.limit_in_bytes": "9223372036854771712\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for groups, want := range map[string]int64{
		"":                                    0,
		"0::/\n":                              0,
		"0::/system.slice/probed.service\n":   256 << 20,
		"0::/pods/a\n":                        128 << 20,
		"0::/nowhere/to/be/seen\n":            0,
		"4:cpu,memory:/docker/unlimited\n":    64 << 20,
		"4:memory:/\n0::/\n":                  0,
		"4:memory:/docker\n3:cpu:/pods\n":     64 << 20,
		"4:memory:/docker\n0::/pods/a/b/c\n1": 64 << 20,
	} {
		if got := limit(files, groups); got != want {
			t.Errorf("%q: %d, want %d", groups, got, want)
		}
	}
	container := fstest.MapFS{"memory.max": &fstest.MapFile{Data: []byte("134217728\n")}}
	if got := limit(container, "0::/kubepods/a/b\n"); got != 128<<20 {
		t.Errorf("in a container: %d", got)
	}
}

func TestReserve(t *testing.T) {
	const size = 1 << 30 // beside which the test is small
	b := Limited(2 * size)
	release, err := b.Reserve(size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reserve(size); err == nil || !strings.Contains(err.Error(), "1024 MiB of memory or more, and of the 2048 MiB") {
		t.Errorf("more than there is: %v", err)
	}
	if n := b.Sockets(); n != size/4 {
		t.Errorf("%d octets for sockets", n)
	}
	release()
	release() // which changes nothing
	if _, err := b.Reserve(size); err != nil {
		t.Error(err)
	}
	if _, err := b.Reserve(size); err == nil {
		t.Error("released twice")
	}
	for _, b := range []*Budget{nil, Limited(0)} {
		if _, err := b.Reserve(1 << 60); err != nil {
			t.Errorf("without a limit: %v", err)
		}
		if n := b.Sockets(); n != 0 {
			t.Errorf("without a limit: %d octets for sockets", n)
		}
	}
	if r := resident(); r < 1<<20 || r > size/4 {
		t.Errorf("%d octets resident", r)
	}
}

// What there may be of something is less within a small budget, and something always.
func TestPart(t *testing.T) {
	for _, c := range []struct {
		budget *Budget
		want   int
	}{
		{nil, 512}, {Limited(0), 512}, {Limited(1 << 30), 512}, {Limited(256 << 20), 512}, {Limited(128 << 20), 256}, {Limited(1), 1},
	} {
		if got := c.budget.Part(512); got != c.want {
			t.Errorf("%+v: %d, want %d", c.budget, got, c.want)
		}
	}
}
