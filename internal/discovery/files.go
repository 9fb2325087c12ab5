package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sd "github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"gopkg.in/yaml.v3"
)

// Doubts are about files that Prometheus's library says are gone. It looks for them by
// filepath.Glob, to which a folder that can't be read, for want of rights or of
// descriptors, is an empty one. A file that is said to be gone and is not keeps its groups.
type doubts struct {
	kept   map[string]int // of each such file, how many groups
	every  time.Duration  // how often the library looks
	errors prometheus.Counter
	log    *slog.Logger
}

// newDoubts returns those about a source, nil if it has no files. The library keeps its
// counter to itself.
func newDoubts(c sd.Config, o sd.DiscovererOptions) (*doubts, error) {
	files, is := c.(*file.SDConfig)
	if !is {
		return nil, nil
	}
	field := reflect.ValueOf(o.Metrics).Elem().FieldByName("fileSDReadErrorsCount")
	if !field.IsValid() || field.Type() != reflect.TypeFor[prometheus.Counter]() {
		return nil, errors.New("this version of Prometheus's library counts what it could not read by another name")
	}
	counter := *(*prometheus.Counter)(field.Addr().UnsafePointer())
	return &doubts{make(map[string]int), time.Duration(files.RefreshInterval), counter, o.Logger}, nil
}

// tick returns when to look again, and how to stop that.
func (d *doubts) tick() (<-chan time.Time, func()) {
	if d == nil {
		return nil, func() {}
	}
	t := time.NewTicker(d.every)
	return t.C, t.Stop
}

// hear returns what is to be believed of what the library says: the groups of a file that
// was read, or that one of a file's groups is gone, which it says of each from 0 on if the
// file is.
func (d *doubts) hear(groups []*targetgroup.Group) []*targetgroup.Group {
	if d == nil || len(groups) == 0 {
		return groups
	}
	name, i := fileOf(groups[0].Source)
	kept, doubted := d.kept[name]
	switch {
	case groups[0].Labels != nil: // it has the file's name there
		delete(d.kept, name)
		return append(groups, goneGroups(name, len(groups), kept)...)
	case doubted && i == kept:
		d.kept[name]++
		return nil
	case i > 0: // the file was read, and has fewer
		return groups
	}
	if err := isGone(name); err != nil {
		d.keep(name, err)
		d.kept[name] = 1
		return nil
	}
	return groups
}

// again looks again for what was kept, and returns what is gone by now.
func (d *doubts) again() (groups []*targetgroup.Group) {
	for name, kept := range d.kept {
		if err := isGone(name); err != nil {
			d.keep(name, err)
			continue
		}
		delete(d.kept, name)
		groups = append(groups, goneGroups(name, 0, kept)...)
	}
	return groups
}

func (d *doubts) keep(name string, err error) {
	d.errors.Inc()
	d.log.Error("Error looking for file: its targets stay", "path", name, "err", err)
}

// isGone returns nil if a file is, or if it has no groups any more, or why that can't be said.
func isGone(name string) error {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // which needs no descriptor
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var groups []any
	if json.Unmarshal(text, &groups) != nil { // whose tabs YAML does not take
		if err := yaml.Unmarshal(text, &groups); err != nil {
			return err
		}
	}
	if len(groups) > 0 {
		return errors.New("it is there, and was not found")
	}
	return nil
}

// goneGroups say that a file's groups are gone, from one on and up to another.
func goneGroups(name string, from, to int) (groups []*targetgroup.Group) {
	for i := from; i < to; i++ {
		groups = append(groups, &targetgroup.Group{Source: fmt.Sprintf("%s:%d", name, i)})
	}
	return groups
}

// fileOf reads the library's name for the group of a file, NAME:NUMBER.
func fileOf(source string) (name string, i int) {
	colon := strings.LastIndexByte(source, ':')
	i, _ = strconv.Atoi(source[colon+1:])
	return source[:max(colon, 0)], i
}
