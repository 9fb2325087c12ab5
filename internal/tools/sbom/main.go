// Sbom writes what a binary is made of, as CycloneDX 1.6 in JSON: its modules as the
// linker has put them down, Go's own library, their licences, and who needs whom. The
// same binary and commit give the same bytes.
//
//	sbom BINARY FILE
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/tools/licence"
)

type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	Expression string `json:"expression"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(binary, file string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	b, err := describe(info, binary)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(b); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

func describe(info *debug.BuildInfo, binary string) (*bom, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	sum := sha256.Sum256(data)
	// A UUID by RFC 9562 §5.8: ours to make, of the binary.
	id := sum[:16]
	digest := hex.EncodeToString(sum[:])
	id = slices.Clone(id)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	b := &bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1,
		Serial: fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
	}
	version := os.Getenv("VERSION")
	if version == "" {
		version = info.Main.Version
	}
	main := component{
		Type: "application", Name: info.Main.Path, Version: version, PURL: purl(info.Main.Path, version),
		Hashes: []hash{{"SHA-256", digest}}, Licenses: []license{{"Apache-2.0"}},
	}
	main.Ref = main.PURL
	b.Metadata = metadata{time.Unix(seconds, 0).UTC().Format(time.RFC3339), main}

	refs := map[string]string{info.Main.Path: main.Ref}
	root, err := goCommand("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std, err := library("std", strings.TrimPrefix(info.GoVersion, "go"), "", strings.TrimSpace(root))
	if err != nil {
		return nil, err
	}
	b.Components = append(b.Components, std)
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		text, err := goCommand("mod", "download", "-json", m.Path+"@"+m.Version)
		if err != nil {
			return nil, err
		}
		var module struct{ Dir string }
		if err := json.Unmarshal([]byte(text), &module); err != nil {
			return nil, err
		}
		c, err := library(m.Path, m.Version, m.Sum, module.Dir)
		if err != nil {
			return nil, err
		}
		refs[m.Path] = c.Ref
		b.Components = append(b.Components, c)
	}
	return b, b.link(refs, std.Ref)
}

// purl names a module as package-url does; a version's + would be a space.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// library is a component that was linked in.
func library(path, version, sum, dir string) (component, error) {
	id, err := licence.Of(dir)
	if err != nil {
		return component{}, err
	}
	c := component{Type: "library", Name: path, Version: version, PURL: purl(path, version), Licenses: []license{{id}}}
	c.Ref = c.PURL
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c, nil
}

// link puts down who needs whom, by the module graph, of what is in the binary. All
// need Go's library.
func (b *bom) link(refs map[string]string, std string) error {
	graph, err := goCommand("mod", "graph")
	if err != nil {
		return err
	}
	needs := make(map[string][]string)
	for line := range strings.Lines(graph) {
		from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		from, version, _ := strings.Cut(from, "@")
		to, _, _ = strings.Cut(to, "@")
		ref := refs[from]
		if ref == "" || refs[to] == "" || version != "" && ref != purl(from, version) {
			continue
		}
		needs[ref] = append(needs[ref], refs[to])
	}
	all := []string{b.Metadata.Component.Ref}
	for i := range b.Components {
		all = append(all, b.Components[i].Ref)
	}
	for _, ref := range all {
		d := dependency{Ref: ref}
		if ref != std {
			d.DependsOn = slices.Concat(needs[ref], []string{std})
			slices.Sort(d.DependsOn)
			d.DependsOn = slices.Compact(d.DependsOn)
		}
		b.Dependencies = append(b.Dependencies, d)
	}
	return nil
}

func goCommand(args ...string) (string, error) {
	name := os.Getenv("GO")
	if name == "" {
		name = "go"
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
