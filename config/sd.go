package config

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/dns"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/http"
	"gopkg.in/yaml.v3"
)

// The tables of service discovery: the keys, defaults and meaning of each are
// Prometheus's own.

// refresh is the key that all mechanisms have.
func refresh[T any](doc string, field func(*T) *model.Duration) key[T] {
	return at(Key{Path: "refresh_interval", Example: "15s", Doc: doc}, refreshInterval, field)
}

// refreshInterval has a lower bound because Prometheus's library panics at 0.
var refreshInterval = scalar("100ms to 168h, such as 30s or 5m", func(s string) (model.Duration, string) {
	d, wrong := parseDuration(s, 100*time.Millisecond, 7*24*time.Hour)
	return model.Duration(d), wrong
}, model.Duration.String)

var fileSD = object[file.SDConfig]{keys: []key[file.SDConfig]{
	at(Key{Path: "files", Example: "[targets/*.yml]", Required: true, Doc: "Files with lists of target groups, in YAML or JSON. A relative path is from the folder of the configuration file. The last part of a path may have a * in it."},
		sdFiles, func(c *file.SDConfig) *[]string { return &c.Files }, "file"),
	refresh("The files are read when they change; this is how often they are read besides.",
		func(c *file.SDConfig) *model.Duration { return &c.RefreshInterval }),
}}

// sdFiles are patterns of files. Prometheus's discovery watches their folders.
var sdFiles = codec[[]string]{
	allowed: "a list of paths that end in .yml, .yaml or .json",
	read: func(d *decoder, n *node) (files []string, ok bool) {
		items, ok := d.list(n, "a list of paths that end in .yml, .yaml or .json")
		for _, item := range items {
			s, is := d.text(item, "a path that ends in .yml, .yaml or .json")
			if wrong := checkPattern(s); is && wrong != "" {
				d.fail(item, "%s", wrong)
				is = false
			}
			s = promconfig.JoinDir(filepath.Dir(d.file), s)
			if readable := d.config.options.Readable; is && readable != nil {
				if err := readable(s); err != nil {
					d.fail(item, "%v", err)
					is = false
				}
			}
			ok = ok && is
			files = append(files, s)
		}
		if ok && len(files) == 0 {
			d.fail(n, "the list is empty; allowed: at least one path")
		}
		return files, ok
	},
	write: texts[string],
}

// checkPattern says what is wrong with a pattern of files, or nothing.
func checkPattern(s string) string {
	ext := filepath.Ext(s)
	if !slices.Contains([]string{".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"}, ext) || strings.Contains(s, "\n") {
		return quote(s) + " is not a file of targets; allowed: paths that end in .yml, .yaml or .json"
	}
	star := strings.IndexByte(s, '*')
	if star >= 0 && strings.Contains(s[star:], "/") {
		return quote(s) + " has a * before its last /; allowed: only in the last part of a path"
	}
	if _, err := filepath.Match(s, ""); err != nil {
		return quote(s) + " is not a pattern of file names: a [ without ]"
	}
	return ""
}

// texts writes a list of words.
func texts[V ~string](vs []V) *yaml.Node {
	y := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range vs {
		y.Content = append(y.Content, word(string(v)))
	}
	return y
}

var dnsSD = object[dns.SDConfig]{keys: []key[dns.SDConfig]{
	at(Key{Path: "names", Example: "[_https._tcp.example.net]", Required: true, Doc: "DNS names to ask for."},
		dnsNames, func(c *dns.SDConfig) *[]string { return &c.Names }, "name"),
	at(Key{Path: "type", Example: "A", Doc: "Type of the records. The targets are the hosts and ports of SRV records, the addresses of A and AAAA records, or the hosts of MX and NS records."},
		dnsType, func(c *dns.SDConfig) *string { return &c.Type }),
	at(Key{Path: "port", Example: "443", Doc: "Port of the targets; required but for SRV."},
		unlessZero(number[int](1, 65535)), func(c *dns.SDConfig) *int { return &c.Port }),
	refresh("Time from one look-up to the next.",
		func(c *dns.SDConfig) *model.Duration { return &c.RefreshInterval }),
}}

var dnsNames = codec[[]string]{
	allowed: "a list of DNS names",
	read: func(d *decoder, n *node) (names []string, ok bool) {
		items, ok := d.list(n, "a list of DNS names")
		for _, item := range items {
			s, is := d.text(item, "a DNS name")
			if wrong := checkHostName(s); is && wrong != "" {
				d.fail(item, "%s", wrong)
				is = false
			}
			ok = ok && is
			names = append(names, s)
		}
		if ok && len(names) == 0 {
			d.fail(n, "the list is empty; allowed: at least one name")
		}
		return names, ok
	},
	write: texts[string],
}

var dnsTypes = []string{"SRV", "A", "AAAA", "MX", "NS"}

var dnsType = scalar(strings.Join(dnsTypes, ", "), func(s string) (string, string) {
	if !slices.Contains(dnsTypes, strings.ToUpper(s)) {
		return "", quote(s) + " is not known; allowed: " + strings.Join(dnsTypes, ", ")
	}
	return s, ""
}, func(s string) string { return s })

func checkDNS(d *decoder, n *node, f fields, c *dns.SDConfig) {
	if strings.ToUpper(c.Type) != "SRV" && !f.has("port") {
		d.fail(n, "port is missing; records of type %s have none", c.Type)
	}
}

var httpSD = object[http.SDConfig]{
	refused: secretRefs,
	keys: append([]key[http.SDConfig]{
		at(Key{Path: "url", Example: "https://inventory.example.net/targets", Required: true, Doc: "URL that answers with a list of target groups in JSON. A password belongs under basic_auth, where /config does not show it."},
			sdURL, func(c *http.SDConfig) *string { return &c.URL }),
		refresh("Time from one request to the next.",
			func(c *http.SDConfig) *model.Duration { return &c.RefreshInterval }),
	}, httpClientKeys(func(c *http.SDConfig) *promconfig.HTTPClientConfig { return &c.HTTPClientConfig })...),
}

var sdURL = scalar("a URL with http:// or https://", func(s string) (string, string) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", quote(withoutPassword(s)) + " is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return "", quote(withoutPassword(s)) + " is not a URL with http:// or https://"
	case u.Host == "":
		return "", quote(withoutPassword(s)) + " has no host"
	}
	return s, ""
}, withoutPassword)

// checkHTTP checks a client's keys against each other, and makes a client of them
// to see that the files that it needs at once are there.
func checkHTTP(d *decoder, n *node, f fields, c *http.SDConfig) {
	if f == nil || d.failedBelow(n) {
		return
	}
	if err := c.HTTPClientConfig.Validate(); err != nil {
		d.fail(n, "%s", foreign(err))
		return
	}
	c.SetDirectory(filepath.Dir(d.file))
	for _, name := range []string{c.HTTPClientConfig.TLSConfig.CAFile, c.HTTPClientConfig.TLSConfig.CertFile, c.HTTPClientConfig.TLSConfig.KeyFile} {
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			d.fail(n, "%s is not a regular file", quote(name))
			return
		}
	}
	client, err := promconfig.NewClientFromConfig(c.HTTPClientConfig, "http")
	if err != nil {
		d.fail(n, "%s", foreign(err))
		return
	}
	client.CloseIdleConnections()
}

// discoveryKeys are the keys of a job for the mechanisms.
func discoveryKeys() []key[Job] {
	return []key[Job]{
		mechanism(Key{Path: "file_sd_configs", Example: "[{files: [targets/*.yml]}]", Doc: "Targets from files that are read again when they change, as in Prometheus."},
			fileSD, file.DefaultSDConfig, func(*decoder, *node, fields, *file.SDConfig) {}),
		mechanism(Key{Path: "http_sd_configs", Example: "[{url: https://inventory.example.net/targets}]", Doc: "Targets from a web server that is asked for them, as in Prometheus."},
			httpSD, http.DefaultSDConfig, checkHTTP),
		mechanism(Key{Path: "dns_sd_configs", Example: "[{names: [_https._tcp.example.net]}]", Doc: "Targets from DNS records, as in Prometheus."},
			dnsSD, dns.DefaultSDConfig, checkDNS),
	}
}

// mechanism makes the key of one kind of discovery.
func mechanism[T any, P interface {
	*T
	discovery.Config
}](k Key, o object[T], initial T, check func(*decoder, *node, fields, *T)) key[Job] {
	var required []string
	for _, k := range o.keys {
		if k.Required {
			required = append(required, k.Path)
		}
	}
	k.Allowed = "a list of mappings with " + strings.Join(required, ", ")
	return key[Job]{
		Key:  k,
		also: []string{strings.TrimSuffix(k.Path, "s")},
		read: func(d *decoder, n *node, j *Job) {
			items, _ := d.list(n, k.Allowed)
			for _, item := range items {
				c := initial
				check(d, item, o.read(d, item, &c), &c)
				j.Discovery = append(j.Discovery, P(&c))
			}
		},
		write: func(j *Job) *yaml.Node {
			var cs []T
			for _, c := range j.Discovery {
				if c, ok := c.(P); ok {
					cs = append(cs, *c)
				}
			}
			if cs == nil {
				return nil
			}
			return printList(cs, o)
		},
	}
}

// failedBelow reports whether something is wrong with n or what is in it.
func (d *decoder) failedBelow(n *node) bool {
	path := n.path()
	return d.bomb != nil || slices.ContainsFunc(d.errs, func(e Error) bool { return strings.HasPrefix(e.Path, path) })
}

// foreign words an error of another library for a user.
func foreign(err error) string {
	s := err.Error()
	if _, message, ok := strings.Cut(s, "yaml: unmarshal errors:\n"); ok {
		s = strings.TrimSpace(message)
	}
	if line, message, ok := strings.Cut(s, ": "); ok && strings.HasPrefix(line, "line ") {
		if _, err := strconv.Atoi(line[len("line "):]); err == nil {
			s = message
		}
	}
	// What can't be decoded may be a password.
	s = regexp.MustCompile("(?s)(cannot (?:decode|unmarshal) !!\\w+) `.*`").ReplaceAllString(s, "$1")
	// Of three ways the third is one of secretRefs, which are refused.
	s = regexp.MustCompile(`, (\w+) & \w+_ref\b`).ReplaceAllString(s, " & $1")
	return visible(strings.TrimPrefix(s, "yaml: "))
}

// secretRefs are keys that Prometheus's library knows and Prometheus itself has no
// use for either.
var secretRefs = func() map[string]string {
	keys := make(map[string]string)
	for _, of := range []string{"username", "password", "credentials", "client_secret", "client_certificate_key", "ca", "cert", "key"} {
		keys[of+"_ref"] = fmt.Sprintf("probed has no store of secrets to look this up in; use %s_file", of)
	}
	return keys
}()
