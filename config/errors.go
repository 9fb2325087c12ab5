package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing wrong with a configuration.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Path    string // of the key, such as jobs[2].interval; empty for the file itself
	Message string // what is wrong, and what is allowed
}

// Error gives "file:line:col: path: message".
func (e Error) Error() string {
	place := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path == "" {
		return place + e.Message
	}
	return place + e.Path + ": " + e.Message
}

// Errors is everything wrong with a configuration, by place. It is never empty.
type Errors []Error

// Error gives one line per error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders errors by place and keeps one of those that say the same about
// the same place, which is what an anchor used twice gives.
func (es Errors) sorted() Errors {
	slices.SortStableFunc(es, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(es, func(a, b Error) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
}
