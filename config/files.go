package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v2"
)

// Files are what file_sd_configs have.
type Files struct {
	Found  map[string][]*targetgroup.Group // by job, for Expand
	Absent []Problem                       // patterns that no file fits; the Source is the pattern
	Broken []Problem                       // files that cannot be read; the Source is the file
}

// ReadFiles reads the files of every job's file_sd_configs once, as their discovery
// would.
func (c *Config) ReadFiles() Files {
	fs := Files{Found: make(map[string][]*targetgroup.Group)}
	for i := range c.Jobs {
		j := &c.Jobs[i]
		for _, pattern := range j.filePatterns() {
			names, _ := filepath.Glob(pattern) // a pattern is checked when it is read
			if len(names) == 0 {
				fs.Absent = append(fs.Absent, Problem{Job: j.Name, Source: visible(pattern), Reason: "no file fits this now"})
			}
			for _, name := range names {
				groups, err := readGroups(name)
				if err != nil {
					fs.Broken = append(fs.Broken, Problem{Job: j.Name, Source: visible(name), Reason: visible(err.Error())})
					continue
				}
				fs.Found[j.Name] = append(fs.Found[j.Name], groups...)
			}
		}
	}
	return fs
}

func (j *Job) filePatterns() (patterns []string) {
	for _, c := range j.Discovery {
		if c, ok := c.(*file.SDConfig); ok {
			patterns = append(patterns, c.Files...)
		}
	}
	return patterns
}

// readGroups reads a file of target groups.
func readGroups(name string) ([]*targetgroup.Group, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file")
	}
	var data []byte
	if err == nil {
		data, err = readMost(name, maxFile)
	}
	if err != nil {
		return nil, err
	}
	var groups []*targetgroup.Group
	if strings.EqualFold(filepath.Ext(name), ".json") {
		err = json.Unmarshal(data, &groups)
	} else {
		err = yaml.UnmarshalStrict(data, &groups)
	}
	if err != nil {
		return nil, fmt.Errorf("not a list of target groups: %s", groupError(err))
	}
	for i, g := range groups {
		if g == nil {
			return nil, fmt.Errorf("target group %d is empty", i+1)
		}
		g.Source = fmt.Sprintf("%s:%d", name, i)
		if g.Labels == nil {
			g.Labels = make(model.LabelSet)
		}
		g.Labels[model.MetaLabelPrefix+"filepath"] = model.LabelValue(name)
	}
	return groups, nil
}

// groupError words what is wrong with a file of target groups, without Go's types.
func groupError(err error) string {
	lines := []string{err.Error()}
	if e := new(yaml.TypeError); errors.As(err, &e) {
		lines = e.Errors
	}
	for i, s := range lines {
		s, _, _ = strings.Cut(s, " into ")
		if before, _, ok := strings.Cut(s, " not found in type "); ok {
			s = strings.Replace(before, "field ", "unknown key ", 1) + "; allowed: targets, labels"
		}
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(s, "yaml: "), "json: ")
	}
	return strings.Join(lines, "; ")
}

// readMost reads a file of at most so many octets.
func readMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err) // the name is said already
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("larger than %d MiB", most>>20)
	}
	return data, err
}
