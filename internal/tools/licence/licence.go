// Package licence tells by which licences a module may be used.
package licence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A mark is what a licence's text has and no other's; all of it.
type mark struct {
	id    string // SPDX's
	texts []string
}

var marks = []mark{
	{"Apache-2.0", []string{"apache license", "version 2.0, january 2004"}},
	{"Apache-2.0", []string{"licensed under the apache license, version 2.0"}}, // by reference
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms"}},
	{"CC0-1.0", []string{"creative commons legal code", "cc0 1.0 universal"}},
	{"ISC", []string{"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"}},
	{"MIT", []string{"permission is hereby granted, free of charge, to any person obtaining a copy of this software"}},
	{"MPL-2.0", []string{"mozilla public license", "version 2.0"}},
}

// errNone means that there is no licence that is known.
var errNone = errors.New("no licence that is known")

// Of reads the licences in a module's folder, and returns an SPDX expression: all of
// them hold.
func Of(dir string) (string, error) {
	var all []string
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", fmt.Errorf("licence: %w", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("licence: %w", err)
			}
			all = append(all, In(string(text))...)
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return "", fmt.Errorf("licence: %s: %w", dir, errNone)
	}
	return strings.Join(all, " AND "), nil
}

// In returns the licences that a text has in it.
func In(text string) (ids []string) {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	for _, m := range marks {
		if m.id == "BSD-2-Clause" && slices.Contains(ids, "BSD-3-Clause") {
			continue // which has all of it
		}
		if !slices.ContainsFunc(m.texts, func(s string) bool { return !strings.Contains(text, s) }) {
			ids = append(ids, m.id)
		}
	}
	return ids
}
