package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/discovery/dns"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/probed/probed/probe"
	"gopkg.in/yaml.v3"
)

// reference lists every key with its default, in the order in which they are
// printed.
func reference() []Key {
	c := initial()
	// Some keys are of some modules only.
	m := newModule("", c.Global)
	modules := []*Module{&m}
	for _, k := range allKinds {
		m := newModule("", c.Global)
		m.become(k, c.Global)
		modules = append(modules, &m)
	}
	lasting := *modules[len(modules)-1]
	lasting.measures(probe.MeasureDuration, c.Global)
	modules = append(modules, &lasting)
	keys := global.describe("global.", &c.Global)
	keys = append(keys, limits.describe("global.limits.", &c.Global.Limits)...)
	keys = append(keys, module.describe("modules.<name>.", modules...)...)
	keys = append(keys, tcpOptions.describe("modules.<name>.tcp_options.", &m.TCPOptions)...)
	keys = append(keys, job.describe("jobs[].", &Job{Module: builtin})...)
	keys = append(keys, staticConfig.describe("jobs[].static_configs[].", &StaticConfig{})...)
	fromFiles, fromWeb, fromDNS, byRule := file.DefaultSDConfig, http.DefaultSDConfig, dns.DefaultSDConfig, relabel.DefaultRelabelConfig
	keys = append(keys, fileSD.describe("jobs[].file_sd_configs[].", &fromFiles)...)
	for _, k := range httpSD.describe("jobs[].http_sd_configs[].", &fromWeb) {
		if k.Doc == asInPrometheus {
			k.Example = httpClientExamples[k.Path[strings.LastIndexByte(k.Path, '.')+1:]]
		}
		keys = append(keys, k)
	}
	keys = append(keys, dnsSD.describe("jobs[].dns_sd_configs[].", &fromDNS)...)
	keys = append(keys, rule.describe("jobs[].relabel_configs[].", &byRule)...)
	return append(keys, mesh.describe("jobs[].mesh.", &Mesh{})...)
}

// httpClientExamples are of the keys that are Prometheus's.
var httpClientExamples = map[string]string{
	"basic_auth":             "{username: probed, password_file: inventory.pass}",
	"authorization":          "{credentials_file: inventory.token}",
	"oauth2":                 "{client_id: probed, client_secret_file: inventory.secret, token_url: 'https://id.example.net/token'}",
	"bearer_token":           "secret",
	"bearer_token_file":      "inventory.token",
	"tls_config":             "{server_name: inventory.internal, min_version: TLS13}",
	"follow_redirects":       "false",
	"enable_http2":           "false",
	"proxy_url":              "http://proxy.example.net:3128",
	"no_proxy":               "198.51.100.0/24",
	"proxy_from_environment": "true",
	"proxy_connect_header":   "{X-Team: [core]}",
	"http_headers":           "{X-Team: {values: [core]}}",
}

// describe lists the table's keys under prefix, with their defaults as the first
// of vs has them that has them.
func (o object[T]) describe(prefix string, vs ...*T) []Key {
	var keys []Key
	for _, k := range o.keys {
		doc := k.Key
		doc.Path = prefix + doc.Path
		for _, v := range vs {
			if y := k.write(v); y != nil && !k.Required && doc.Default == "" && doc.Path != "jobs[].mesh" {
				doc.Default = flow(y)
			}
		}
		keys = append(keys, doc)
	}
	return keys
}

// flow writes a tree on one line.
func flow(y *yaml.Node) string {
	y.Style |= yaml.FlowStyle
	return strings.TrimSpace(string(marshal(y)))
}

// TestPage holds docs/configuration.md against the tables.
func TestPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# The configuration, key by key

Made from the tables that read it: ` + "`go test ./config -update`" + ` writes this page.
[deploy/probed.yml](../deploy/probed.yml) is an example with every key.
`)
	section := ""
	for _, k := range reference() {
		dot := strings.LastIndexByte(k.Path, '.')
		if k.Path[:dot] != section {
			section = k.Path[:dot]
			fmt.Fprintf(&b, "\n## `%s`\n\n| key | allowed | default | example | |\n|---|---|---|---|---|\n", section)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Path[dot+1:], k.allowed(), k.byDefault(), k.example(), k.kinds()+k.Doc)
	}
	golden(t, "../docs/configuration.md", b.String())
}

// allowed is what the key allows, with its unit.
func (k Key) allowed() string {
	if k.Unit == "" || strings.Contains(k.Allowed, k.Unit) {
		return k.Allowed
	}
	return k.Allowed + " (" + k.Unit + ")"
}

// example is the key's, as it stands in YAML.
func (k Key) example() string {
	return strings.ReplaceAll("`"+k.Example+"`", "|", "\\|")
}

// kinds says which modules have the key, if not all.
func (k Key) kinds() string {
	if k.Kinds == nil {
		return ""
	}
	return "*" + kindNames(k.Kinds) + ".* "
}

// byDefault is what is in force without the key.
func (k Key) byDefault() string {
	switch {
	case k.Required:
		return "required"
	case k.Default == "" || strings.HasPrefix(k.Default, "as in"):
		return k.Default
	}
	return "`" + k.Default + "`"
}

// TestExample asserts that the example in deploy has every key.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../deploy/probed.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range reference() {
		key := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
		if k.Doc == asInPrometheus {
			continue
		}
		if !strings.Contains(string(data), key+":") {
			t.Errorf("%s is not in deploy/probed.yml", k.Path)
		}
	}
}

// TestReference asserts that every key is described, and that its example and
// default are accepted by the key itself.
func TestReference(t *testing.T) {
	file := filepath.Join(t.TempDir(), "probed.yml")
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "request.bin"), []byte("QUIT\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, k := range reference() {
		if k.Allowed == "" || k.Doc == "" || k.Example == "" || strings.Contains(k.Example, "`") {
			t.Errorf("%s lacks words: %+v", k.Path, k)
		}
		for _, value := range []string{k.Example, k.Default} {
			if value == "" || strings.HasPrefix(value, "as in") {
				continue
			}
			if _, err := Parse(file, []byte(with(k, value))); err != nil {
				t.Errorf("%s: %s: %v", k.Path, value, err)
			}
		}
	}
}

// with writes a configuration that has one key with a value.
func with(k Key, value string) string {
	path, kind := k.Path, "half_open"
	if k.Kinds != nil {
		kind = k.Kinds[0].String()
	}
	global, modules, job, targets := "{}", "{}", "", "targets: [], "
	parent, key := path[:strings.LastIndexByte(path, '.')], path[strings.LastIndexByte(path, '.')+1:]
	pair := key + ": " + value
	switch key { // what it needs beside it
	case "limit":
		pair += ", measure: duration"
	case "fin_with_data":
		pair += ", send: QUIT"
	}
	switch parent {
	case "global":
		global = "{" + pair + "}"
	case "global.limits":
		global = "{limits: {" + pair + "}}"
	case "modules.<name>":
		modules = "{" + kind + ": {" + pair + "}}"
	case "modules.<name>.tcp_options":
		modules = "{half_open: {tcp_options: {" + pair + "}}}"
	case "jobs[]":
		job = pair
		if key == "targets" {
			targets = ""
		}
	case "jobs[].static_configs[]":
		job = "static_configs: [{targets: [], " + pair + "}]"
		if key == "targets" {
			job = "static_configs: [{" + pair + "}]"
		}
	case "jobs[].file_sd_configs[]", "jobs[].http_sd_configs[]", "jobs[].dns_sd_configs[]":
		switch key { // what it needs beside it
		case "files", "url", "names":
		case "proxy_connect_header", "no_proxy":
			pair += ", url: 'http://h', proxy_url: 'http://p'"
		default:
			pair += map[string]string{"file": ", files: [a.yml]", "http": ", url: 'http://h'", "dns": ", names: [h]"}[parent[len("jobs[]."):strings.Index(parent, "_sd")]]
		}
		if key == "type" {
			pair += ", port: 80"
		}
		job = parent[len("jobs[]."):len(parent)-2] + ": [{" + pair + "}]"
	case "jobs[].relabel_configs[]":
		if key != "target_label" {
			pair += ", target_label: x"
		}
		job = "relabel_configs: [{" + pair + "}]"
	case "jobs[].mesh":
		job = "mesh: {" + pair + "}"
	}
	if key != "name" {
		job = "name: x, " + job
	}
	return "global: " + global + "\nmodules: " + modules + "\njobs: [{" + targets + job + "}]\n"
}
