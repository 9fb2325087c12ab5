package config

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/dns"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
)

// asPrometheus is a job's discovery and relabelling as Prometheus reads them.
type asPrometheus struct {
	Discovery discovery.Configs
	Relabel   []*relabel.Config `yaml:"relabel_configs"`
}

func (p *asPrometheus) UnmarshalYAML(unmarshal func(any) error) error {
	return discovery.UnmarshalYAMLWithInlineConfigs(p, unmarshal)
}

// sameTexts are keys that probed and Prometheus read.
var sameTexts = []string{
	`file_sd_configs: [{files: [a.yml, "sub/*.json", /abs/x.yaml, "sub/a*b*.JSON"]}, {files: [../b.yml], refresh_interval: 1m30s}]`,
	`dns_sd_configs: [{names: [_https._tcp.example.net, a.example.]}, {names: [b], type: a, port: 80, refresh_interval: 5s}, {names: [b], type: srv}, {names: [c], type: MX, port: 25}]`,
	`http_sd_configs: [{url: "http://h/x?y=z#f"}, {url: "https://u:p@h:8080/", refresh_interval: 10s, follow_redirects: false, enable_http2: false}]`,
	`http_sd_configs: [{url: "http://h", basic_auth: {username: u, password: p}}, {url: "http://h", basic_auth: {username_file: u, password_file: /p}}]`,
	`http_sd_configs: [{url: "http://h", authorization: {credentials: c}}, {url: "http://h", authorization: {type: " Token ", credentials_file: c}}]`,
	`http_sd_configs: [{url: "http://h", bearer_token: t}, {url: "http://h", bearer_token_file: sub/t}]`,
	`http_sd_configs: [{url: "http://h", tls_config: {insecure_skip_verify: true, server_name: s, min_version: TLS12, max_version: TLS13}}]`,
	`http_sd_configs: [{url: "http://h", proxy_url: "http://u:p@p:3128", no_proxy: "a,b", proxy_connect_header: {X: [a, b]}}, {url: "http://h", proxy_from_environment: true}]`,
	`http_sd_configs: [{url: "http://h", http_headers: {X: {values: [a], secrets: [b, 1], files: [sub/c]}, Y: {values: []}}}]`,
	`http_sd_configs: [{url: "http://h", oauth2: {client_id: i, client_secret: s, token_url: "http://t", scopes: [a, b], endpoint_params: {a: b}, tls_config: {ca_file: ""}, proxy_url: "http://p"}}]`,
	`http_sd_configs: [{url: "http://h", oauth2: {client_id: i, client_certificate_key_file: k, grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", signature_algorithm: RS512, claims: {a: x, b: [1, z]}, token_url: "http://t"}}]`,
	`relabel_configs: [{}]`,
	`relabel_configs: [{source_labels: [a, __b], separator: "", regex: "(.*)", target_label: c, replacement: "", action: Replace}]`,
	`relabel_configs: [{source_labels: [], regex: 80, target_label: "x_${1}", replacement: 443}]`,
	`relabel_configs: [{action: keep, regex: "a|b", source_labels: [a]}, {action: drop, regex: "", source_labels: ["my.label"]}, {action: hashmod, modulus: 18446744073709551615, target_label: x}]`,
	`relabel_configs: [{action: keepequal, source_labels: [a], target_label: b}, {action: dropequal, source_labels: [a], target_label: b}, {action: labelmap, regex: "__meta_(.+)"}, {action: labelmap, regex: "a(.)b(.)", replacement: "${2}_$1"}]`,
	`relabel_configs: [{action: labeldrop, regex: a}, {action: labelkeep, regex: "b.*"}, {action: lowercase, source_labels: [a], target_label: b}, {action: UPPERCASE, source_labels: [a], target_label: b}]`,
}

// TestReadsAsPrometheus holds the tables against Prometheus's own reading: what
// comes out is the same, deeply, and stays so through /config.
func TestReadsAsPrometheus(t *testing.T) {
	all := make(map[string][]string)
	for _, text := range sameTexts {
		var want asPrometheus
		if text == "relabel_configs: [{}]" {
			text = "relabel_configs: [{target_label: x}]"
		}
		if err := yaml.UnmarshalStrict([]byte(text), &want); err != nil {
			t.Fatalf("Prometheus refuses %s: %v", text, err)
		}
		want.Discovery.SetDirectory("dir")
		for _, r := range want.Relabel {
			if err := r.Validate(model.LegacyValidation); err != nil {
				t.Fatalf("Prometheus refuses %s: %v", text, err)
			}
		}
		c, err := Parse("dir/f.yml", []byte("jobs: [{name: j, targets: [], "+text+"}]"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		j := &c.Jobs[0]
		if !reflect.DeepEqual(j.Discovery, want.Discovery) || !reflect.DeepEqual(j.Relabel, want.Relabel) {
			t.Errorf("%s:\n%s\nnot as Prometheus:\n%s", text, yamlOf(t, j.Discovery, j.Relabel), yamlOf(t, want.Discovery, want.Relabel))
		}
		key, list, _ := strings.Cut(text, ": ")
		all[key] = append(all[key], strings.TrimSuffix(strings.TrimPrefix(list, "["), "]"))
		if !secretive(c) {
			again(t, c)
		}
	}
	// All of them in one job.
	text := "jobs: [{name: j"
	for key, items := range all {
		text += ", " + key + ": [" + strings.Join(items, ", ") + "]"
	}
	c, err := Parse("f", []byte(text+"}]"))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, d := range c.Jobs[0].Discovery {
		order = append(order, d.Name())
	}
	if !slices.Equal(slices.Compact(order), []string{"file", "http", "dns"}) {
		t.Error(order)
	}
}

// secretive reports whether a configuration has secrets, which it does not print.
func secretive(c *Config) bool {
	shown := c.YAML()
	return bytes.Contains(shown, []byte("<secret>")) || bytes.Contains(shown, []byte(":xxxxx@"))
}

func yamlOf(t *testing.T, vs ...any) string {
	t.Helper()
	var b strings.Builder
	for _, v := range vs {
		y, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(y)
	}
	return b.String()
}

// TestHasAllOfPrometheus asserts that no key of Prometheus's is missing: a newer
// version of it may have more.
func TestHasAllOfPrometheus(t *testing.T) {
	for _, c := range []struct {
		is    reflect.Type
		names []string
	}{
		{reflect.TypeFor[file.SDConfig](), fileSD.names()},
		{reflect.TypeFor[http.SDConfig](), httpSD.names()},
		{reflect.TypeFor[dns.SDConfig](), dnsSD.names()},
		{reflect.TypeFor[relabel.Config](), rule.names()},
	} {
		var want []string
		for _, f := range yamlFields(c.is) {
			want = append(want, f.name)
		}
		slices.Sort(want)
		slices.Sort(c.names)
		if !slices.Equal(want, c.names) {
			t.Errorf("%v has %q, we read %q", c.is, want, c.names)
		}
	}
	if got, want := discovery.RegisteredConfigNames(), []string{"dns", "file", "http", "static"}; !slices.Equal(got, want) {
		t.Errorf("the mechanisms are %q", got)
	}
}

// TestSecrets asserts that none leaves by /config, wherever one may stand.
func TestSecrets(t *testing.T) {
	c, err := Parse("f", []byte(`
jobs:
- name: j
  http_sd_configs:
  - {url: "http://u:hush@hush0@h/", basic_auth: {username: seen1, password: hush1}, proxy_url: "http://seen2:hush2@p", proxy_connect_header: {X: [hush3]}}
  - {url: "http://h", authorization: {type: seen3, credentials: hush4}, http_headers: {seen4: {values: [hush12], secrets: [hush5]}}}
  - {url: "http://h", bearer_token: hush6}
  - {url: "http://h", oauth2: {client_id: seen5, client_secret: hush7, token_url: "http://seen6:hush8@t", endpoint_params: {seen7: hush9}, claims: {seen8: {a: [hush10]}}, proxy_url: "http://x:hush11@p"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"u:hush@p:3128", "http:u:hush@p:3128", "http:/u:hush@p:3128", "//u:hush@p:3128"} {
		c, err := Parse("f", fmt.Appendf(nil, "jobs: [{name: j, http_sd_configs: [{url: 'http://h', proxy_url: '%s', oauth2: {client_id: i, token_url: '%[1]s'}}]}]", url))
		if err != nil {
			t.Fatal(err)
		}
		if shown := string(c.YAML()); strings.Contains(shown, "hush") {
			t.Errorf("a secret shows:\n%s", shown)
		}
	}
	shown := string(c.YAML())
	if strings.Contains(shown, "hush") {
		t.Errorf("a secret shows:\n%s", shown)
	}
	for i := range 8 {
		if want := fmt.Sprint("seen", i+1); !strings.Contains(shown, want) {
			t.Errorf("%s does not show:\n%s", want, shown)
		}
	}
	if n := strings.Count(shown, "<secret>"); n < 8 {
		t.Errorf("%d times <secret>:\n%s", n, shown)
	}
	if _, err := Parse("shown", c.YAML()); err != nil {
		t.Errorf("what is shown does not parse: %v\n%s", err, shown)
	}
}

// TestSecretsInErrors asserts that an error does not quote a URL's password.
func TestSecretsInErrors(t *testing.T) {
	for _, url := range []string{"ftp://u:hush@h", "http://u:hush@", "http://u:hush@h:x/", "http://u:hush@[h", "http:u:hush@h", "u:hush@h:1/%"} {
		_, err := Parse("f", []byte("jobs: [{name: j, http_sd_configs: [{url: '"+url+"'}, {url: 'http://h', proxy_url: '"+url+"'}]}]"))
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, text := range []string{"http_headers: {X-API-Key: hush}", "http_headers: {X-API-Key: {secrets: hush}}", "http_headers: hush", "proxy_connect_header: {X: hush}",
		"basic_auth: 'u:hush'", "authorization: hush", "oauth2: hush"} {
		_, err := Parse("f", []byte("jobs: [{name: j, http_sd_configs: [{url: 'http://h', "+text+"}]}]"))
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "a text stands here; allowed: ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSecretsWithoutQuotes asserts that a password which YAML takes for something else is in no error.
func TestSecretsWithoutQuotes(t *testing.T) {
	for _, password := range []string{"*hush", "!hush", "!<hush>", "!!int hush", `!!int "a\nhush"`, "!!float hush", "!!bool hush"} {
		for _, text := range []string{"basic_auth: {username: u, password: %s }", "authorization: {credentials: %s }", "oauth2: {client_id: i, token_url: 'http://t', client_secret: %s }", "bearer_token: %s "} {
			_, err := Parse("f", []byte("jobs: [{name: j, http_sd_configs: [{url: 'http://h', "+fmt.Sprintf(text, password)+"}]}]"))
			if err == nil || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: %v", fmt.Sprintf(text, password), err)
			}
		}
	}
}

// TestSecretsWithoutASpace asserts that no error shows a password that stands right behind its colon,
// which YAML takes for a part of the key.
func TestSecretsWithoutASpace(t *testing.T) {
	for _, text := range []string{"basic_auth: {username: u, password:hush}", "authorization: {credentials:hush}", "oauth2: {client_id: i, token_url: 'http://t', client_secret:hush}",
		"bearer_token:hush", "oauth2: {client_id: i, client_secret: s, token_url: 'http://t', endpoint_params: {k:hush}}", "http_headers: {X-Key: {values:[hush]}}", "tls_config: {key:hush}",
		"basic_auth: {username: u, password=hush}", "basic_auth: {username: u, password hush}", "basic_auth: {username: u, password：hush}", "authorization: {Bearer hush}", "bearer_token=hush"} {
		_, err := Parse("f", []byte("jobs: [{name: j, http_sd_configs: [{url: 'http://h', "+text+"}]}]"))
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestFilesOfHTTP asserts that what an HTTP client reads at once has to be there,
// and what it reads at each request has not.
func TestFilesOfHTTP(t *testing.T) {
	for text, want := range map[string]string{
		"tls_config: {ca_file: absent.pem}":                                                "unable to read CA cert: unable to read file absent.pem: open absent.pem: no such file or directory",
		"tls_config: {cert_file: absent.pem, key_file: absent.key}":                        "unable to read specified client cert: unable to read file absent.pem: open absent.pem: no such file or directory",
		"tls_config: {ca_file: testdata}":                                                  `"testdata" is not a regular file`,
		"tls_config: {ca: nonsense}":                                                       "unable to use specified CA cert inline",
		"tls_config: {min_version: TLS13, max_version: TLS12}":                             "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified",
		"basic_auth: {username: u, password_file: absent}":                                 "",
		"authorization: {credentials_file: absent}":                                        "",
		"oauth2: {client_id: i, token_url: 'http://t', tls_config: {ca_file: absent.pem}}": "",
	} {
		_, err := Parse("f", []byte("jobs: [{name: j, http_sd_configs: [{url: 'http://h', "+text+"}]}]"))
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != "f:1:36: jobs[0].http_sd_configs[0]: "+want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestReadFiles holds the reading of files for check-config against the discovery
// of Prometheus that reads them for the daemon.
func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yml":      "- targets: [a:1, b:2]\n  labels: {site: ams}\n- targets: [c:3]\n",
		"b.json":     `[{"targets": ["d:4"], "labels": {"site": "fra", "__module__": "active_close"}}, {"targets": []}]`,
		"empty.yaml": "",
		"other.txt":  "- targets: [x:1]",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	conf := filepath.Join(dir, "probed.yml")
	c, err := Parse(conf, []byte("jobs: [{name: i, file_sd_configs: [{files: [a.yml]}]}, {name: j, file_sd_configs: [{files: ['*.yml', '*.json', '*.yaml']}, {files: [absent.yml]}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	got := c.ReadFiles()
	if len(got.Broken) != 0 || len(got.Absent) != 1 || got.Absent[0].String() != "job j: "+dir+"/absent.yml: no file fits this now" {
		t.Errorf("%v %v", got.Broken, got.Absent)
	}
	if len(got.Found["i"]) != 2 || !reflect.DeepEqual(got.Found["j"][:2], got.Found["i"]) {
		t.Errorf("%v", got.Found["i"])
	}
	if want := readByPrometheus(t, c.Jobs[1].Discovery[0].(*file.SDConfig), 3); !reflect.DeepEqual(got.Found["j"], want) {
		t.Errorf("got %s\nwant %s", yamlOf(t, got.Found["j"]), yamlOf(t, want))
	}
	if x := c.Expand(got.Found); len(x.Targets) != 7 || len(x.Problems) != 0 {
		t.Errorf("%q %v", briefs(x.Targets), x.Problems)
	}
	for name, text := range map[string]string{
		"unknown-key.yml": "- targets: [a:1]\n  lables: {a: b}\n",
		"no-list.yml":     "targets: [a:1]\n",
		"null.yml":        "- targets: [a:1]\n-\n",
		"broken.json":     `[{"targets": ["a:1"]}`,
		"key.json":        `[{"targets": ["a:1"], "label": {}}]`,
	} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.yml"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"broken.json: not a list of target groups: unexpected end of JSON input",
		"folder.yml: is not a regular file",
		`key.json: not a list of target groups: unknown field "label"`,
		"no-list.yml: not a list of target groups: line 1: cannot unmarshal !!map",
		"null.yml: target group 2 is empty",
		"unknown-key.yml: not a list of target groups: line 2: unknown key lables; allowed: targets, labels",
	}
	var lines []string
	for _, p := range c.ReadFiles().Broken {
		if p.Job == "j" {
			lines = append(lines, strings.TrimPrefix(p.String(), "job j: "+dir+"/"))
		}
	}
	slices.Sort(lines)
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readByPrometheus returns what Prometheus's own discovery says of files, n of them.
func readByPrometheus(t *testing.T, c *file.SDConfig, n int) (all []*targetgroup.Group) {
	t.Helper()
	metrics := c.NewDiscovererMetrics(prometheus.NewRegistry(), nil)
	d, err := c.NewDiscoverer(discovery.DiscovererOptions{Logger: slog.New(slog.DiscardHandler), Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	up, ended := make(chan []*targetgroup.Group), make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx, up)
	}()
	for range n {
		select {
		case gs := <-up:
			all = append(all, gs...)
		case <-ctx.Done():
			t.Fatal("it says nothing")
		}
	}
	cancel()
	<-ended
	return all
}

// TestNoClouds asserts that Prometheus's discovery brings none of its mechanisms
// along but those that we have: of Kubernetes, no more than its work queue's metrics.
func TestNoClouds(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		for _, no := range []string{"k8s.io/api/", "k8s.io/client-go/kubernetes", "k8s.io/client-go/rest", "amazonaws", "aws-sdk", "Azure", "cloud.google.com", "hashicorp", "docker", "linode", "hetzner", "prometheus/prometheus/tsdb", "prometheus/prometheus/promql"} {
			if strings.Contains(path, no) {
				t.Errorf("%s is part of the binary", path)
			}
		}
	}
}
