package licence_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/probed/probed/internal/tools/licence"
)

// Texts are told apart by what they ask for, however their lines are broken; and what
// is not known is an error, not a guess.
func TestOf(t *testing.T) {
	const bsd = "Redistribution and use in source\nand binary forms, with or without modification, are permitted"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"two clauses":   {map[string]string{"LICENSE": bsd}, "BSD-2-Clause"},
		"three":         {map[string]string{"LICENSE": bsd + "\nused to endorse or\n promote products"}, "BSD-3-Clause"},
		"two files":     {map[string]string{"LICENSE": bsd, "COPYING.txt": "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software"}, "BSD-2-Clause AND MIT"},
		"by reference":  {map[string]string{"LICENCE": `Licensed under the Apache License, Version 2.0 (the "License");`}, "Apache-2.0"},
		"of no licence": {map[string]string{"LICENSE": "All rights reserved.", "README": bsd}, ""},
		"without":       {nil, ""},
	} {
		dir := t.TempDir()
		for file, text := range tt.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := licence.Of(dir); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
	}
	ours, err := os.ReadFile("../../../LICENSE")
	if got := licence.In(string(ours)); err != nil || !slices.Contains(got, "Apache-2.0") || len(slices.Compact(got)) != 1 {
		t.Errorf("our own: %v, %v", got, err)
	}
}
