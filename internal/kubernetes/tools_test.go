package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const (
	manifests = "../../deploy/kubernetes"
	tools     = "../../.cache/kubernetes" // what the Makefile builds there
)

// command runs a program and returns what it prints; that it fails fails the test.
func command(t testing.TB, in, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// build returns what kustomize makes of a folder of deploy/kubernetes.
func build(t testing.TB, folder string) string {
	t.Helper()
	return command(t, "", filepath.Join(tools, "kustomize"), "build", filepath.Join(manifests, folder))
}

// overlay returns what kustomize makes of a kustomization.yaml that the test writes;
// $MANIFESTS in it is the path of deploy/kubernetes.
func overlay(t testing.TB, text string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Abs(manifests)
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(dir, there) // kustomize takes no absolute ones
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "kustomization.yaml"), strings.ReplaceAll(text, "$MANIFESTS", relative))
	return command(t, "", filepath.Join(tools, "kustomize"), "build", dir)
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A verdict is what an API server says of an object, in admit's words.
type verdict struct {
	Object              string
	Errors, Warnings    []string
	PodSecurity, Beyond string
}

func admit(t testing.TB, built string) []verdict {
	t.Helper()
	var all []verdict
	parse(t, command(t, built, filepath.Join(tools, "admit"), "-crds", filepath.Join(tools, "crds")), &all)
	return all
}

// A container is what a node would start, in admit's words.
type container struct {
	Args  []string
	Spec  map[string]any // for runc
	Files map[string]string
	DNS   string `json:"-"` // what the kubelet writes into /etc/resolv.conf
}

// node returns what a node starts for the pod of this ordinal of the object.
func node(t testing.TB, built, object string, ordinal int) container {
	t.Helper()
	var c container
	parse(t, command(t, built, filepath.Join(tools, "admit"), "-container", object, "-ordinal", strconv.Itoa(ordinal)), &c)
	return c
}

func parse(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// objects takes what kustomize has built apart, by KIND/NAME.
func objects(t testing.TB, built string) map[string]map[string]any {
	t.Helper()
	all := make(map[string]map[string]any)
	d := yaml.NewDecoder(strings.NewReader(built))
	for {
		var o map[string]any
		if err := d.Decode(&o); err != nil {
			if len(all) == 0 {
				t.Fatal(err)
			}
			return all
		}
		all[o["kind"].(string)+"/"+at[string](t, o, "metadata", "name")] = o
	}
}

// at returns the value at a path of keys and indices.
func at[T any](t testing.TB, o any, path ...any) T {
	t.Helper()
	for i, step := range path {
		switch step := step.(type) {
		case string:
			m, ok := o.(map[string]any)
			if !ok {
				t.Fatalf("%v: no mapping", path[:i+1])
			}
			o = m[step]
		case int:
			list, ok := o.([]any)
			if !ok || step >= len(list) {
				t.Fatalf("%v: no such item", path[:i+1])
			}
			o = list[step]
		}
	}
	v, ok := o.(T)
	if !ok {
		t.Fatalf("%v: %v is no %T", path, o, v)
	}
	return v
}
