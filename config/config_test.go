package config

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestBad(t *testing.T) {
	names := files(t, "testdata/bad/*.yml")
	if len(names) < 40 {
		t.Errorf("%d broken configurations; the issue asks for at least 40", len(names))
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(name), data)
			if err == nil || c != nil {
				t.Fatal("it parsed")
			}
			errs, ok := err.(Errors)
			if !ok || len(errs) == 0 {
				t.Fatalf("not an Errors but %T: %v", err, err)
			}
			for _, leak := range []string{"yaml:", "into ", "[]string", "map[", "config.", "netip", "strconv", "%!"} {
				if strings.Contains(err.Error(), leak) {
					t.Errorf("%q shows in %q", leak, err)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yml")+".err", err.Error()+"\n")
		})
	}
}

func TestRoundTrip(t *testing.T) {
	for _, name := range append(files(t, "testdata/good/*.yml"), "default.yml", "../deploy/probed.yml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			again(t, c)
		})
	}
}

// again asserts that c, printed and parsed, is c.
func again(t *testing.T, c *Config) {
	t.Helper()
	back, err := Parse("printed", c.YAML())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.YAML())
	}
	if !reflect.DeepEqual(c, back) {
		t.Fatalf("the printed configuration is another one\n%s\n%+v\n%+v", c.YAML(), c, back)
	}
}

func TestDefault(t *testing.T) {
	c, err := Default(4321)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, target := range c.Targets() {
		got = append(got, target.Module.Name+" "+target.Address+" "+target.Interval.String())
	}
	if want := []string{"half_open 127.0.0.1:4321 1s", "half_open [::1]:4321 1s"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
